"""``selfemo stop``: ends a `selfemo run` as Ctrl-C does, from another terminal."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from selfemo_api.contract import ExitCode
from selfemo_api.text.control_characters import json_text
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.cli.runs.target import Target, find_run
from selfemo_operator.local.owner import Owner, read_owner
from selfemo_operator.local.state import RunnerError, is_active

#: Seconds between two looks at the lock.
_POLL_SECONDS = 0.1
#: The program that this command ends.
PROGRAM = "selfemo run"


def stop_run(target: str, state: Path, *, timeout: float, as_json: bool) -> None:
    """End the runner of an evolution, and wait until it has ended.

    Parameters
    ----------
    target
        The YAML file of the evolution, or the name of the run.
    state
        The folder with the states of all evolutions.
    timeout
        Seconds to wait for the end: its stage saves its work.
    as_json
        Print a JSON object.

    Raises
    ------
    RunnerError
        If there is no such run, or its process cannot be ended from here.
    """
    run = find_run(target, state)
    active = is_active(run.folder)
    if not active:
        run.read()  # there may be no run at all
    else:
        owner = _owner(run)
        if not owner.terminate():
            raise RunnerError(
                f"process {owner.pid}, which ran {run.name}, has ended, and its last stage is "
                "about to end: wait a moment",
                ExitCode.UNAVAILABLE,
            )
        _wait(run, owner, timeout)
    if as_json:
        content = {"name": run.name, "stopped": active, "state": str(run.folder)}
        sys.stdout.write(json_text(content) + "\n")
    elif active:
        print_line(f"{run.name} is stopped: run {run.start_command} to continue")
    else:
        print_line(f"{run.name} is not running: there is nothing to stop")


def _owner(run: Target) -> Owner:
    """Return the process that runs an evolution, if this command may end it."""
    owner = read_owner(run.folder)
    if owner is None:
        raise RunnerError(
            f"{run.folder}/lock does not name the process that runs {run.name}, because an "
            "earlier version wrote it. Stop the process with Ctrl-C"
        )
    if not owner.is_here:
        raise RunnerError(
            f"{run.name} runs on another machine ({owner.host}, process {owner.pid}): stop it there"
        )
    if owner.program != PROGRAM:
        raise RunnerError(
            f"{run.name} is run by another program ({owner.program}, process {owner.pid}): stop "
            "it there"
        )
    return owner


def _wait(run: Target, owner: Owner, timeout: float) -> None:
    """Wait until no process holds the lock of a run. Raises RunnerError after the timeout."""
    deadline = time.monotonic() + timeout
    while is_active(run.folder):
        if time.monotonic() > deadline:
            raise RunnerError(
                f"process {owner.pid} has not ended after {timeout:g} s: its stage may still be "
                "saving its work. Wait, or run the command again",
                ExitCode.UNAVAILABLE,
            )
        time.sleep(_POLL_SECONDS)
