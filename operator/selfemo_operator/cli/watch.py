"""Follows an evolution until it ends, on one machine or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console
from rich.live import Live

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.metrics import ProgressField
from selfemo_api.stages import job_name
from selfemo_api.text.control_characters import printable_lines
from selfemo_operator.cli.output_format import exit_code
from selfemo_operator.cli.runs.target import Target
from selfemo_operator.cli.terminal.evolution_view import (
    FittingView,
    StageProgress,
    evolution_view,
    status_changes,
)
from selfemo_operator.cli.terminal.progress import LogTail, format_metrics
from selfemo_operator.local.state import is_active


class Source(Protocol):
    """A place from which an evolution is read."""

    def read(self) -> tuple[EmotionEvolution, StageProgress]:
        """Return the evolution with its present status, and the progress of its stage.

        Raises
        ------
        RunnerError
            If there is no such evolution, or it cannot be read.
        """


class LocalSource:
    """The state folder of a `selfemo run`, whether a runner is active or not.

    Parameters
    ----------
    run
        The run.
    """

    def __init__(self, run: Target) -> None:
        self._run = run
        self._job = ""
        self._tail = LogTail(run.folder)
        self._progress = StageProgress()

    def read(self) -> tuple[EmotionEvolution, StageProgress]:
        """Return the stored evolution, with the newest progress line of its stage."""
        evolution = self._run.read()
        return evolution, self._read_progress(evolution)

    def _read_progress(self, evolution: EmotionEvolution) -> StageProgress:
        """Return the progress of the current stage, with a note if no runner is active."""
        status = evolution.status
        if status.finished or status.stage is None:
            return StageProgress()
        name = job_name(evolution.metadata.name, status.generation, status.stage, status.attempt)
        if name != self._job:
            self._job, self._progress = name, StageProgress()
            self._tail = LogTail(self._run.folder / "jobs" / name / "log.jsonl")
        line = self._tail.last_progress()
        if line is not None:
            total = max(float(line.get(ProgressField.TOTAL, 1)), 1.0)
            self._progress = StageProgress(
                float(line.get(ProgressField.DONE, 0)), total, format_metrics(line)
            )
        if is_active(self._run.folder):
            return self._progress
        note = f"No runner is active: run {self._run.start_command} to continue."
        return StageProgress(
            self._progress.done, self._progress.total, self._progress.metrics, note
        )


class _ChangeLines:
    """Prints each change as a line with the time.

    Parameters
    ----------
    console
        The console whose file receives the lines.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._previous: EmotionEvolution | None = None
        self._note = ""

    def update(self, evolution: EmotionEvolution, progress: StageProgress) -> None:
        """Print a line for each change since the last update."""
        lines = list(status_changes(self._previous, evolution))
        if progress.note and progress.note != self._note:
            lines.append(progress.note)
        self._previous, self._note = evolution, progress.note
        for line in lines:
            # Not Console.print: a Ctrl-C during that call makes it write the text a second time.
            # Further lines of a message are indented: none looks like a change of its own.
            text = printable_lines(line).replace("\n", "\n  ")
            self._console.file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n")
            self._console.file.flush()


def follow(source: Source, console: Console, *, once: bool, poll_seconds: float) -> int:
    """Show an evolution until it ends, and return the exit code.

    A terminal shows one view, which is updated in place. Any other output receives one line for
    each change.

    Parameters
    ----------
    source
        The place from which the evolution is read.
    console
        The console that shows the evolution.
    once
        Show the view once, and return.
    poll_seconds
        Seconds between two reads of the source.
    """
    if once:
        evolution, progress = source.read()
        console.print(evolution_view(evolution, progress, datetime.now(UTC)))
        return exit_code(evolution)
    try:
        if not console.is_terminal:
            return _until_end(source, _ChangeLines(console).update, poll_seconds)
        with Live(console=console, auto_refresh=False) as live:

            def draw(evolution: EmotionEvolution, progress: StageProgress) -> None:
                # the last view stays on the screen, and may be scrolled: it is whole
                view = evolution_view if evolution.status.finished else FittingView
                live.update(view(evolution, progress, datetime.now(UTC)), refresh=True)

            return _until_end(source, draw, poll_seconds)
    except KeyboardInterrupt:
        console.print("Stopped watching; the evolution continues.")
        return ExitCode.INTERRUPTED


def _until_end(
    source: Source, show: Callable[[EmotionEvolution, StageProgress], None], poll_seconds: float
) -> int:
    """Show the evolution at each poll until it has finished, and return the exit code."""
    while True:
        evolution, progress = source.read()
        show(evolution, progress)
        if evolution.status.finished:
            return exit_code(evolution)
        time.sleep(poll_seconds)
