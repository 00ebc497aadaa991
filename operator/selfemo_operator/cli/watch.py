"""Follows an evolution to its end, on one machine or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError
from rich.console import Console
from rich.live import Live

from selfemo_api.api_model import first_problem
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import job_name
from selfemo_operator.cli.output_format import exit_code
from selfemo_operator.cli.terminal.picture import Activity, news, picture
from selfemo_operator.cli.terminal.progress import Tail, figures
from selfemo_operator.local.state import RunnerError, at_work

#: A shell's code of a command that Ctrl-C ended: no script takes it for the evolution's end.
INTERRUPTED = 130


class Source(Protocol):
    """Where an evolution is looked at."""

    def look(self) -> tuple[EmotionEvolution, Activity]:
        """Return it as it is now. Raises RunnerError where there is none."""


class LocalSource:
    """The state folder of a `selfemo run`, which may be at work or not.

    Parameters
    ----------
    folder
        ``<state>/<namespace>/<name>``.
    file
        The YAML file, for messages.
    """

    def __init__(self, folder: Path, file: Path) -> None:
        self._folder = folder
        self._file = file
        self._job = ""
        self._tail = Tail(folder)
        self._activity = Activity()

    def look(self) -> tuple[EmotionEvolution, Activity]:
        """Return the stored evolution, with the newest progress line of its stage."""
        path = self._folder / "evolution.json"
        try:
            evolution = EmotionEvolution.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise RunnerError(
                f"no run is kept in {self._folder}: start it with `selfemo run {self._file}`, or "
                "say with --state where its state is"
            ) from None
        except ValidationError as error:
            field, message = first_problem(error)
            raise RunnerError(
                f"{path} is of another version than this command, or damaged: {field}: {message}"
            ) from None
        return evolution, self._progress(evolution)

    def _progress(self, evolution: EmotionEvolution) -> Activity:
        status = evolution.status
        if status.finished or status.stage is None:
            return Activity()
        name = job_name(evolution.metadata.name, status.generation, status.stage, status.attempt)
        if name != self._job:
            self._job, self._activity = name, Activity()
            self._tail = Tail(self._folder / "jobs" / name / "log.jsonl")
        line = self._tail.last_progress()
        if line is not None:
            total = max(float(line.get("total", 1)), 1.0)
            self._activity = Activity(float(line.get("done", 0)), total, figures(line))
        if at_work(self._folder):
            return self._activity
        note = f"Nobody is at work: `selfemo run {self._file}` goes on from here."
        return Activity(self._activity.done, self._activity.total, self._activity.figures, note)


class _Lines:
    """A line for each change, with its time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: EmotionEvolution | None = None
        self._note = ""

    def update(self, evolution: EmotionEvolution, activity: Activity) -> None:
        """Print what is new."""
        lines = list(news(self._seen, evolution))
        if activity.note and activity.note != self._note:
            lines.append(activity.note)
        self._seen, self._note = evolution, activity.note
        for line in lines:
            # not Console.print: a Ctrl-C while that writes has its text written twice
            self._console.file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")
            self._console.file.flush()


def follow(source: Source, console: Console, *, once: bool, poll_seconds: float) -> int:
    """Show an evolution until it ends, and return the exit code.

    On a terminal it is one picture that changes; elsewhere a line for each change.

    Parameters
    ----------
    once
        Show the picture once and return.
    """
    if once:
        evolution, activity = source.look()
        console.print(picture(evolution, activity, datetime.now(UTC)))
        return exit_code(evolution)
    try:
        if not console.is_terminal:
            return _until_end(source, _Lines(console).update, poll_seconds)
        with Live(console=console, auto_refresh=False) as live:

            def draw(evolution: EmotionEvolution, activity: Activity) -> None:
                live.update(picture(evolution, activity, datetime.now(UTC)), refresh=True)

            return _until_end(source, draw, poll_seconds)
    except KeyboardInterrupt:
        console.print("No longer watching; the evolution goes on.")
        return INTERRUPTED


def _until_end(
    source: Source, show: Callable[[EmotionEvolution, Activity], None], poll_seconds: float
) -> int:
    while True:
        evolution, activity = source.look()
        show(evolution, activity)
        if evolution.status.finished:
            return exit_code(evolution)
        time.sleep(poll_seconds)
