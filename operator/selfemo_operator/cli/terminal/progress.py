"""Live progress of a local run, which is read from the log lines of the stages."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBars

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.metrics import (
    PROGRESS_MESSAGE,
    CheckMetric,
    EvaluateMetric,
    FlywheelMetric,
    ProgressField,
    ScoreMetric,
    TrainMetric,
)
from selfemo_operator.local.state import LocalState
from selfemo_operator.planner.types import JobState, Observed, StageJob

#: The metrics that fit into one line, by their names in log lines and manifests.
_SHOWN_METRICS = (
    CheckMetric.WARNINGS,
    TrainMetric.LOSS,
    ScoreMetric.REWARD_MEAN,
    FlywheelMetric.KEPT_SHARE,
    EvaluateMetric.WEIGHTED_F1,
    ProgressField.TOKENS_PER_SECOND,
)


class LogTail:
    """Reads the lines that were added to a log since the last read.

    Parameters
    ----------
    path
        The log, in JSON lines. It may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def last_progress(self) -> dict[str, Any] | None:
        """Return the last progress line among the new lines; None if there is none."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return None
        whole = data.rfind(b"\n") + 1  # the last line may not be complete yet
        self._offset += whole
        newest = None
        for line in data[:whole].splitlines():
            if f'"{PROGRESS_MESSAGE}"'.encode() in line:
                newest = _parse_progress(line) or newest
        return newest


class Progress:
    """A context manager that shows a bar for each running stage, and a line for each ended one.

    The lines are above the bars, where the terminal scrolls them away. A run may have hundreds of
    stages: their bars would fill the terminal, and the running one would be below its last line.
    Without a terminal, a stage has a line when it begins instead of a bar.

    Parameters
    ----------
    console
        The console that shows the progress.
    state
        The state folder that contains the logs of the stages.
    """

    def __init__(self, console: Console, state: LocalState) -> None:
        self._console = console
        self._state = state
        self._bars = ProgressBars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[metrics]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, tuple[TaskID, LogTail]] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def update(self, _evolution: EmotionEvolution, observed: Observed) -> None:
        """Show the present progress of the Jobs.

        Parameters
        ----------
        observed
            All Jobs of the run.
        """
        for job in observed.jobs:
            if job.state is JobState.RUNNING:
                self._show_running(job)
            elif job.name in self._tasks:
                self._show_ended(job)

    def _show_running(self, job: StageJob) -> None:
        """Update the bar of a running Job. A new Job receives a bar, or a line."""
        if job.name not in self._tasks:
            task = self._bars.add_task(_title(job), total=1, metrics="")
            self._tasks[job.name] = (task, LogTail(self._state.job(job.name).log))
            if not self._console.is_terminal:
                self._console.print(f"{_title(job)} …", highlight=False, markup=False)
        task, tail = self._tasks[job.name]
        line = tail.last_progress()
        if line is not None:
            self._bars.update(
                task,
                completed=line.get(ProgressField.DONE, 0),
                total=max(line.get(ProgressField.TOTAL, 1), 1),
                metrics=format_metrics(line),
            )

    def _show_ended(self, job: StageJob) -> None:
        """Print the result or the failure of a Job that has ended, instead of its bar."""
        task, _ = self._tasks.pop(job.name)
        self._bars.remove_task(task)
        style: str | None = None
        if job.state is JobState.SUCCEEDED and job.result is not None:
            result = job.result
            text = f"{result.rows} rows in {result.seconds:.0f} s {format_metrics(result.metrics)}"
        else:
            # the end of the run prints all lines of a message
            text = job.failure.message.partition("\n")[0] if job.failure else "ended"
            style = "red"
        line = f"{_title(job)}: {text}".rstrip()
        self._console.print(line, style=style, highlight=False, markup=False)


def _title(job: StageJob) -> str:
    """Return generation and stage of a Job, and the number of a repeated attempt."""
    attempt = f" (attempt {job.attempt})" if job.attempt > 1 else ""
    return f"generation {job.generation} {job.stage.value:<9}{attempt}"


def format_metrics(values: dict[str, Any]) -> str:
    """Return the most important metrics as text.

    Parameters
    ----------
    values
        The fields of a progress line, or the metrics of a stage.

    Examples
    --------
    >>> format_metrics({"message": "progress", "done": 3, "loss": -0.036123, "rewardMean": 0.5})
    'loss -0.03612 rewardMean 0.5'
    """
    return " ".join(
        f"{name} {values[name]:.4g}"
        for name in _SHOWN_METRICS
        if isinstance(values.get(name), int | float)
    )


def _parse_progress(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a progress line; None if it is a line of another kind."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    is_progress = isinstance(fields, dict) and fields.get("message") == PROGRESS_MESSAGE
    return fields if is_progress else None
