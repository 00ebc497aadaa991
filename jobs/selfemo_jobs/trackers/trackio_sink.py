"""Trackio: one run of a project in a local SQLite file, on a Space, or on a server of its own.

``TRACKIO_DIR`` is the folder of the files, ``TRACKIO_PROJECT`` the project. With
``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` the rows are sent there.
"""

from __future__ import annotations

import os
from typing import Any

from selfemo_jobs.trackers.points import TrackedGeneration, TrackedRun, rows_of
from selfemo_jobs.trackers.sink import SinkFiles, TrackerError

#: The project, if `TRACKIO_PROJECT` is not set.
PROJECT = "selfemo"


def make_sink() -> TrackioSink:
    """Return the sink of Trackio. Nothing is sent unless an address is set."""
    is_remote = any(os.environ.get(n) for n in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    if not is_remote:
        os.environ["HF_HUB_OFFLINE"] = "1"  # Trackio would ask the hub for the user's name
    return TrackioSink(is_remote=is_remote)


class TrackioSink:
    """Writes rows. The sink continues after the last row that the run has.

    Parameters
    ----------
    is_remote
        Whether the rows are sent to a Space or a server.
    """

    def __init__(self, *, is_remote: bool) -> None:
        self._is_remote = is_remote

    def open(self, run: TrackedRun, files: SinkFiles) -> None:  # noqa: ARG002 - the protocol's
        """Resume or create the run. The parameters are those of the protocol."""
        import trackio

        self._project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        self._rows = rows_of(run.generations)
        self._run: Any = trackio.init(
            project=self._project,
            name=run.id,
            config={**run.settings, **run.tags},
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        self._next: int = self._run._next_step  # the number of the first row that is not stored

    def log(self, generation: TrackedGeneration) -> int:
        """Write the rows of a generation. The parameters are those of the protocol."""
        number = generation.generation
        rows = [r for r in self._rows if r.generation == number and r.number >= self._next]
        for row in rows:
            self._run.log(row.values, step=row.number)
        return sum(len(row.values) - 1 for row in rows)

    def finish(self) -> None:
        """Wait until all rows are stored. Raises TrackerError if some are not.

        Trackio's own methods only warn.
        """
        from trackio.sqlite_storage import SQLiteStorage

        self._run.finish()
        if self._is_remote:
            if SQLiteStorage.has_pending_data(self._project):
                raise TrackerError("some rows could not be sent; they wait in TRACKIO_DIR")
            return
        last = SQLiteStorage.get_max_step_for_run(self._project, self._run.name, self._run.id)
        if last != self._rows[-1].number:
            raise TrackerError("Trackio could not write some rows to TRACKIO_DIR")
