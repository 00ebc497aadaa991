"""Reads the options of ``selfemo``: the YAML file, with ``--set`` and ``--data`` applied."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.strict_yaml import parse_yaml
from selfemo_api.schema.validation import load_evolution
from selfemo_operator.local.state import RunnerError

#: A URI relative to the current folder. It exists only here: a cluster has no current folder.
_RELATIVE = re.compile(r"^file://\./")


@dataclass(frozen=True)
class RunRequest:
    """One evolution that the user wants to run, watch or report on."""

    evolution: EmotionEvolution
    """The evolution of the file, with the changes of ``--set``."""
    data: Mapping[str, str]
    """The folder of each data volume, by the volume's name."""
    state: Path
    """The evolution's state folder, ``<state>/<namespace>/<name>``."""
    uid: str
    """The uid of the run."""


def read_request(
    file: Path, changes: Sequence[str], data: Sequence[str], state: Path
) -> RunRequest:
    """Return the request that a file and the options describe, after the file is validated.

    Parameters
    ----------
    file
        The YAML file of the evolution.
    changes
        The values of ``--set``, each as ``PATH=VALUE``.
    data
        The values of ``--data``, each as ``NAME=FOLDER``.
    state
        The folder with the states of all evolutions.

    Raises
    ------
    InvalidEvolution
        If the file, with the changes, is not valid.
    RunnerError
        If the value of an option is malformed.
    """
    evolution = load_evolution(file, dict(_parse_change(text) for text in changes))
    evolution = _with_absolute_uris(evolution)
    metadata = evolution.metadata
    folder = state.absolute() / metadata.namespace / metadata.name
    volumes = dict(_parse_volume(text) for text in data)
    return RunRequest(evolution, volumes, folder, local_uid(evolution))


def local_uid(evolution: EmotionEvolution) -> str:
    """Return the uid of a local run: the same name gives the same uid on every machine.

    Parameters
    ----------
    evolution
        The evolution, of which namespace and name are used.

    Returns
    -------
    str
        Eight hexadecimal digits.
    """
    metadata = evolution.metadata
    return hashlib.sha256(f"{metadata.namespace}/{metadata.name}".encode()).hexdigest()[:8]


def _parse_change(text: str) -> tuple[str, Any]:
    """Return the path below ``spec`` and the value of one ``--set``."""
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise RunnerError(f"--set {text}: must be PATH=VALUE, e.g. --set selfPlay.engine=VLLM")
    try:
        return path.removeprefix("spec."), parse_yaml(value)[0]
    except (yaml.YAMLError, ValueError) as error:
        raise RunnerError(f"--set {text}: the value is not YAML: {error}") from None


def _parse_volume(text: str) -> tuple[str, str]:
    """Return the name and the absolute folder of one ``--data``."""
    name, sign, folder = text.partition("=")
    if not sign or not name:
        raise RunnerError(f"--data {text}: must be NAME=FOLDER, e.g. --data meld=data/meld")
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise RunnerError(f"--data {text}: {path} is not a folder")
    return name, str(path)


def _with_absolute_uris(evolution: EmotionEvolution) -> EmotionEvolution:
    """Return the evolution with absolute `file://` URIs, since stages may run in another folder."""
    current = Path.cwd().as_uri()

    def make_absolute(value: Any) -> Any:
        if isinstance(value, str):
            return _RELATIVE.sub(current + "/", value)
        if isinstance(value, dict):
            return {k: make_absolute(v) for k, v in value.items()}
        return [make_absolute(v) for v in value] if isinstance(value, list) else value

    spec = type(evolution.spec).model_validate(make_absolute(evolution.spec.to_json()))
    return evolution.model_copy(update={"spec": spec})
