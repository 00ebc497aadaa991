"""Finds the run that a person names: by the YAML file of its evolution, or by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from selfemo_api.api_model import first_problem
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.local_runs import STATE_FILE
from selfemo_api.text.suggestions import did_you_mean
from selfemo_operator.cli.run_options import read_requests
from selfemo_operator.local.state import RunnerError, run_folders

_NAME = re.compile(r"(?:([a-z0-9][-a-z0-9]*)/)?([a-z][-a-z0-9]*)")


@dataclass(frozen=True)
class Target:
    """A run on this machine, which may not have begun."""

    folder: Path
    """The state folder of the run, ``<state>/<namespace>/<name>``."""
    name: str
    """The name of the evolution."""
    start_command: str
    """The command that starts or continues the run."""
    file_evolution: EmotionEvolution | None = None
    """The evolution of the file; None if the run was named."""

    def read(self) -> EmotionEvolution:
        """Return the stored evolution, with its status.

        Raises
        ------
        RunnerError
            If there is no such run, or its state cannot be read.
        """
        path = self.folder / STATE_FILE
        try:
            return read_evolution(self.folder)
        except FileNotFoundError:
            raise RunnerError(
                f"there is no run in {self.folder}: start it with {self.start_command}, or "
                "specify its state folder with --state"
            ) from None
        except ValidationError as error:
            field, message = first_problem(error)
            raise RunnerError(
                f"{path} was written by another version of this command, or is damaged: "
                f"{field}: {message}"
            ) from None


def read_evolution(folder: Path) -> EmotionEvolution:
    """Return the evolution that a state folder stores. Raises FileNotFoundError, ValidationError.

    Parameters
    ----------
    folder
        The folder ``<state>/<namespace>/<name>``.
    """
    return EmotionEvolution.model_validate_json((folder / STATE_FILE).read_bytes())


def find_run(text: str, state: Path, changes: Sequence[str] = ()) -> Target:
    """Return the run that an argument names.

    Parameters
    ----------
    text
        The path of a YAML file, ``-`` for standard input, or a name with or without a namespace.
    state
        The folder with the states of all evolutions.
    changes
        The values of ``--set`` for the file.

    Raises
    ------
    InvalidEvolution
        If the file is not valid.
    RunnerError
        If there is no such run, or the file has several.
    """
    name = _NAME.fullmatch(text)
    if name is None or Path(text).is_file():
        return _of_file(text, state, changes)
    if changes:
        raise RunnerError(f"--set requires the evolution's file, but {text} is the name of a run")
    folder = state.absolute() / (name[1] or "default") / name[2]
    folders = run_folders(state.absolute())
    if folder not in folders and name[1] is None:
        same = [other for other in folders if other.name == name[2]]
        folder = same[0] if len(same) == 1 else folder
    if folder not in folders:
        names = [f"{f.parent.name}/{f.name}" if name[1] else f.name for f in folders]
        hint = did_you_mean(text, names) or ": `selfemo list` lists the runs there"
        raise RunnerError(f"there is no run `{text}` below {state}{hint}")
    return Target(folder, name[2], "the same `selfemo run` command")


def _of_file(text: str, state: Path, changes: Sequence[str]) -> Target:
    requests = read_requests([text], changes, [], state)
    if len(requests) > 1:
        names = ", ".join(request.evolution.metadata.name for request in requests)
        raise RunnerError(f"{text} contains several evolutions: specify the name of one: {names}")
    (request,) = requests
    evolution = request.evolution
    return Target(request.state, evolution.metadata.name, f"`selfemo run {text}`", evolution)
