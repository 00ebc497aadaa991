"""Reads the options of ``selfemo``: the YAML file, with ``--set`` and ``--data`` applied."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.local_runs import absolute_spec, local_uid
from selfemo_api.schema.strict_yaml import PARSE_ERRORS, parse_yaml
from selfemo_api.schema.validation import (
    InvalidEvolution,
    Problem,
    load_evolution,
    load_evolutions,
    read_text,
)
from selfemo_operator.local.state import RunnerError


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
    source: str = ""
    """The file of the evolution, with the number of its document if there are several."""


def read_requests(
    files: Sequence[str], changes: Sequence[str], data: Sequence[str], state: Path
) -> list[RunRequest]:
    """Return a request for each document of some files, after all of them are validated.

    Parameters
    ----------
    files
        The YAML files. ``-``: standard input.
    changes
        The values of ``--set``, each as ``PATH=VALUE``. They hold for each document.
    data
        The values of ``--data``, each as ``NAME=FOLDER``.
    state
        The folder with the states of all evolutions.

    Raises
    ------
    InvalidEvolution
        If a document, with the changes, is not valid. It has the problems of all documents.
    RunnerError
        If the value of an option is malformed, or two documents are one evolution.
    """
    requests, errors = [], []
    for content in read_documents(files, changes, data, state):
        if isinstance(content, InvalidEvolution):
            errors.append(content)
        else:
            requests.append(content)
    if errors:
        raise InvalidEvolution.of(errors)
    names: dict[Path, str] = {}
    for request in requests:
        other = names.get(request.state)
        if other is not None:
            raise RunnerError(
                f"{request.source}: metadata.name: {other} also contains the evolution "
                f"`{request.evolution.metadata.name}`: rename one of them"
            )
        names[request.state] = request.source
    return requests


def read_documents(
    files: Sequence[str], changes: Sequence[str], data: Sequence[str], state: Path
) -> Iterator[RunRequest | InvalidEvolution]:
    """Yield a request for each document of some files, or what is wrong with the document.

    Parameters
    ----------
    files, changes, data, state
        The same as in :func:`read_requests`.

    Raises
    ------
    RunnerError
        If the value of an option is malformed.
    """
    values = dict(_parse_change(text) for text in changes)
    volumes = dict(_parse_volume(text) for text in data)
    if files.count("-") > 1:
        raise RunnerError("`-` is specified twice: standard input can be read only once")
    for file in files:
        try:
            name, text = _text_of(file)
            documents = load_evolutions(name, text, values)
        except InvalidEvolution as error:
            yield error
            continue
        for index, evolution in enumerate(documents, start=1):
            if isinstance(evolution, InvalidEvolution):
                yield evolution
            else:
                source = name if len(documents) == 1 else f"{name} (document {index})"
                yield _request(evolution, volumes, state, source)


def _text_of(file: str) -> tuple[str, str]:
    """Return the name and the text of a file, or of standard input. Raises InvalidEvolution."""
    if file != "-":
        return file, read_text(Path(file))
    name = "standard input"
    try:
        return name, sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        problem = Problem("", f"is not UTF-8 (byte {error.start})")
        raise InvalidEvolution(name, [problem]) from None


def request_of(
    file: Path, changes: Mapping[str, Any], volumes: Mapping[str, str], state: Path
) -> RunRequest:
    """Return the request that a file, changes and data volumes describe.

    Parameters
    ----------
    file
        The YAML file of the evolution.
    changes
        Values that replace those of the file, by dotted path below ``spec``.
    volumes
        The absolute folder of each data volume, by the volume's name.
    state
        The folder with the states of all evolutions.

    Raises
    ------
    InvalidEvolution
        If the file, with the changes, is not valid.
    """
    return _request(load_evolution(file, dict(changes)), volumes, state, str(file))


def _request(
    evolution: EmotionEvolution, volumes: Mapping[str, str], state: Path, source: str
) -> RunRequest:
    evolution = evolution.model_copy(update={"spec": absolute_spec(evolution.spec)})
    metadata = evolution.metadata
    folder = state.absolute() / metadata.namespace / metadata.name
    uid = local_uid(metadata.namespace, metadata.name)
    return RunRequest(evolution, volumes, folder, uid, source)


def _parse_change(text: str) -> tuple[str, Any]:
    """Return the path below ``spec`` and the value of one ``--set``."""
    path, sign, value = text.partition("=")
    if not sign or not path:
        raise RunnerError(f"--set {text}: must be PATH=VALUE, e.g. --set selfPlay.engine=VLLM")
    try:
        return path.removeprefix("spec."), parse_yaml(value)[0]
    except PARSE_ERRORS as error:
        reason = str(error) or "it is nested too deeply"
        raise RunnerError(f"--set {text}: the value is not YAML: {reason}") from None


def _parse_volume(text: str) -> tuple[str, str]:
    """Return the name and the absolute folder of one ``--data``."""
    name, sign, folder = text.partition("=")
    if not sign or not name:
        raise RunnerError(f"--data {text}: must be NAME=FOLDER, e.g. --data meld=data/meld")
    return name, volume_folder(Path(folder), f"--data {text}")


def volume_folder(folder: Path, what: str) -> str:
    """Return the absolute path of the folder of a data volume.

    Parameters
    ----------
    folder
        The folder.
    what
        The option or the argument, for the message.

    Raises
    ------
    RunnerError
        If there is no such folder, or its path has a colon.
    """
    path = folder.expanduser().absolute()
    if not path.is_dir():
        raise RunnerError(f"{what}: {path} is not a folder")
    if ":" in str(path):  # it divides the volumes in SELFEMO_DATA
        raise RunnerError(
            f"{what}: {path} contains a colon: rename the folder, or use a symbolic link to it"
        )
    return str(path)
