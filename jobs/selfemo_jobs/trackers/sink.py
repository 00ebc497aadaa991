"""A tracker as a sink: one module for each tool, which imports its library only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from selfemo_api.spec import Tracker
from selfemo_api.text.extras import install_hint, is_installed, missing_extras
from selfemo_jobs.trackers.points import TrackedGeneration, TrackedRun


@dataclass(frozen=True)
class SinkFiles:
    """The files that a sink may use."""

    folder: Path
    """A folder whose files are put below ``<run>/tensorboard`` in the storage."""
    report: Path | None
    """The HTML report of the run, if there is one."""


class Sink(Protocol):
    """One tool. Each method may raise any error of the tool's library."""

    def open(self, run: TrackedRun, files: SinkFiles) -> None:
        """Open the run in the tool, or create it, and write its settings and tags.

        Parameters
        ----------
        run
            The run.
        files
            The files that the sink may use.
        """

    def log(self, generation: TrackedGeneration) -> int:
        """Write the points of a generation that the tool does not have yet.

        Generations are written in order, from 0.

        Parameters
        ----------
        generation
            The generation.

        Returns
        -------
        int
            The number of points that were written; 0 if the tool has all of them.
        """

    def finish(self) -> None:
        """Write the report where the tool stores files, and wait until everything is written."""


@dataclass(frozen=True)
class SinkModule:
    """Where the sink of a tool is."""

    module: str
    """The module, which has a function ``make_sink`` without parameters."""
    extra: str
    """The extra of the package that installs the tool's library."""


SINKS: Mapping[Tracker, SinkModule] = {
    Tracker.MLFLOW: SinkModule("selfemo_jobs.trackers.mlflow_sink", "mlflow"),
    Tracker.WANDB: SinkModule("selfemo_jobs.trackers.wandb_sink", "wandb"),
    Tracker.TRACKIO: SinkModule("selfemo_jobs.trackers.trackio_sink", "trackio"),
    Tracker.TENSORBOARD: SinkModule("selfemo_jobs.trackers.tensorboard_sink", "tensorboard"),
}


def make_sink(tracker: Tracker) -> Sink:
    """Return the sink of a tracker. Its library is imported.

    Parameters
    ----------
    tracker
        The tracker.

    Raises
    ------
    TrackerError
        If the library is not installed, or a variable that the tool needs is not set.
    """
    if missing_extras([SINKS[tracker].extra]):
        raise TrackerError(missing_library(tracker))
    return cast(Sink, import_module(SINKS[tracker].module).make_sink())


class TrackerError(Exception):
    """A tracker cannot be used. The message is one line: what is wrong, and what to do."""


def missing_library(tracker: Tracker) -> str:
    """Return the message about a tracker whose library is not installed.

    Parameters
    ----------
    tracker
        The tracker.
    """
    return f"the library of {tracker.value} is not installed: {install_hint(SINKS[tracker].extra)}"


def missing_libraries(
    trackers: Sequence[Tracker], has: Callable[[str], bool] = is_installed
) -> dict[Tracker, str]:
    """Return the trackers whose library is not installed, and what to do.

    Parameters
    ----------
    trackers
        The trackers of a run.
    has
        Returns whether a module can be imported.
    """
    return {t: missing_library(t) for t in trackers if missing_extras([SINKS[t].extra], has)}
