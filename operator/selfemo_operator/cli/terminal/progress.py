"""Live progress of a local run, read from the stages' own log lines."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from selfemo_api.evolution import EmotionEvolution
from selfemo_operator.local.state import LocalState
from selfemo_operator.planner.types import JobState, Observed, StageJob

#: Figures of a stage that are worth a place in one line, by their names in log lines and metrics.
_SHOWN = ("loss", "reward", "rewardMean", "keptShare", "weightedF1", "tokensPerSecond")


class Tail:
    """Reads what a log has gained since the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def last_progress(self) -> dict[str, Any] | None:
        """Return the newest progress line among the new ones."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return None
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        newest = None
        for line in data[:whole].splitlines():
            if b'"progress"' in line:
                newest = _parse(line) or newest
        return newest


class Progress:
    """One bar for each stage, as a context manager; plain lines where there is no terminal."""

    def __init__(self, console: Console, state: LocalState) -> None:
        self._console = console
        self._state = state
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, tuple[TaskID, Tail]] = {}
        self._ended: set[str] = set()

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
        """Show where things stand."""
        for job in observed.jobs:
            if job.state is JobState.RUNNING:
                self._running(job)
            elif job.name in self._tasks and job.name not in self._ended:
                self._ended.add(job.name)
                self._end(job)

    def _running(self, job: StageJob) -> None:
        if job.name not in self._tasks:
            task = self._bars.add_task(_title(job), total=1, figures="")
            self._tasks[job.name] = (task, Tail(self._state.job(job.name).log))
            if not self._console.is_terminal:
                self._console.print(f"{_title(job)} …", highlight=False)
        task, tail = self._tasks[job.name]
        line = tail.last_progress()
        if line is not None:
            self._bars.update(
                task,
                completed=line.get("done", 0),
                total=max(line.get("total", 1), 1),
                figures=figures(line),
            )

    def _end(self, job: StageJob) -> None:
        task, _ = self._tasks[job.name]
        total = self._bars.tasks[task].total or 1
        if job.state is JobState.SUCCEEDED and job.result is not None:
            said = figures(job.result.metrics)
            self._bars.update(task, completed=total, figures=said)
            text = f"{_title(job)}: {job.result.rows} rows in {job.result.seconds:.0f} s {said}"
        else:
            why = job.failure.message if job.failure else "ended"
            self._bars.update(task, figures=f"[red]{why}")
            text = f"{_title(job)}: {why}"
        self._bars.stop_task(task)
        if not self._console.is_terminal or job.state is JobState.FAILED:
            self._console.print(text, highlight=False, markup=False)


def _title(job: StageJob) -> str:
    again = f" (attempt {job.attempt})" if job.attempt > 1 else ""
    return f"generation {job.generation} {job.stage.value:<9}{again}"


def figures(values: dict[str, Any]) -> str:
    """Return the figures of a progress line, or of a stage's metrics, that are worth showing."""
    return " ".join(
        f"{k} {values[k]:.4g}" for k in _SHOWN if isinstance(values.get(k), int | float)
    )


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("message") == "progress" else None
