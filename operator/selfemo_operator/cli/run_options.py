"""What a person asks the command for: the file, with the options applied."""

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

#: A folder below the one where the command runs; a cluster knows no such thing.
_RELATIVE = re.compile(r"^file://\./")


@dataclass(frozen=True)
class Request:
    """One evolution to run here."""

    evolution: EmotionEvolution
    data: Mapping[str, str]
    state: Path
    """Folder of this evolution's state."""
    uid: str


def read(file: Path, changes: Sequence[str], data: Sequence[str], state: Path) -> Request:
    """Return the request, its file validated.

    Raises
    ------
    InvalidEvolution
        If the file, with the changes, is not valid.
    RunnerError
        If an option is not of its form.
    """
    evolution = load_evolution(file, dict(_change(text) for text in changes))
    evolution = _absolute(evolution)
    metadata = evolution.metadata
    folder = state.absolute() / metadata.namespace / metadata.name
    return Request(evolution, dict(_volume(text) for text in data), folder, local_uid(evolution))


def local_uid(evolution: EmotionEvolution) -> str:
    """Return the uid of a local run: the same name means the same run, on every machine."""
    metadata = evolution.metadata
    return hashlib.sha256(f"{metadata.namespace}/{metadata.name}".encode()).hexdigest()[:8]


def _change(text: str) -> tuple[str, Any]:
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise RunnerError(f"--set {text}: must be PATH=VALUE, e.g. --set selfPlay.engine=VLLM")
    try:
        return path.removeprefix("spec."), parse_yaml(value)[0]
    except (yaml.YAMLError, ValueError) as error:
        raise RunnerError(f"--set {text}: the value is not YAML: {error}") from None


def _volume(text: str) -> tuple[str, str]:
    name, sign, folder = text.partition("=")
    if not sign or not name:
        raise RunnerError(f"--data {text}: must be NAME=FOLDER, e.g. --data meld=data/meld")
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise RunnerError(f"--data {text}: {path} is not a folder")
    return name, str(path)


def _absolute(evolution: EmotionEvolution) -> EmotionEvolution:
    """Make `file://./…` absolute: stages may run in another folder."""
    here = Path.cwd().as_uri()

    def mend(value: Any) -> Any:
        if isinstance(value, str):
            return _RELATIVE.sub(here + "/", value)
        if isinstance(value, dict):
            return {k: mend(v) for k, v in value.items()}
        return [mend(v) for v in value] if isinstance(value, list) else value

    spec = type(evolution.spec).model_validate(mend(evolution.spec.to_json()))
    return evolution.model_copy(update={"spec": spec})
