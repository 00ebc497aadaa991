"""Weights & Biases: one run of a project, online or offline.

``WANDB_PROJECT`` names the project, ``WANDB_API_KEY`` is the key, ``WANDB_MODE`` is the mode. With
neither a mode nor a key, the run is written offline to ``WANDB_DIR``; ``wandb sync`` uploads it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from selfemo_jobs.trackers.points import CURVES, Axis, TrackedGeneration, TrackedRun, rows_of
from selfemo_jobs.trackers.sink import SinkFiles

#: The project, if `WANDB_PROJECT` is not set.
PROJECT = "selfemo"
#: Seconds for the connection, and for the upload at the end.
_INIT_SECONDS, _FINISH_SECONDS = 30.0, 45.0


def make_sink() -> WandbSink:
    """Return the sink of Weights & Biases."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if not os.environ.get("WANDB_MODE") and not os.environ.get("WANDB_API_KEY"):
        os.environ["WANDB_MODE"] = "offline"
    os.environ.setdefault("WANDB_PROJECT", PROJECT)
    return WandbSink()


class WandbSink:
    """Writes rows. An online run continues after the last row that the server has.

    An offline run cannot be resumed. It is written again as a whole, and replaces the folder that
    the generation before wrote. So there is always one folder to upload.
    """

    def open(self, run: TrackedRun, files: SinkFiles) -> None:
        """Resume or create the run. The parameters are those of the protocol."""
        import wandb

        self._files = files
        self._rows = rows_of(run.generations)
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            init_timeout=_INIT_SECONDS,
            finish_timeout=_FINISH_SECONDS,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            allow_val_change=True,
        )
        self._run: Any = wandb.init(
            id=run.id,
            name=run.id,
            resume="allow",
            config={**run.settings, **run.tags},
            tags=["selfemo"],
            settings=settings,
        )
        self._next: int = self._run.step  # 0 for a new run, and for every offline run
        self._define_axes()

    def log(self, generation: TrackedGeneration) -> int:
        """Write the rows of a generation. The parameters are those of the protocol."""
        number = generation.generation
        rows = [r for r in self._rows if r.generation == number and r.number >= self._next]
        for row in rows:
            self._run.log({**row.values, "_timestamp": row.time}, step=row.number)
        return sum(len(row.values) - 1 for row in rows)

    def finish(self) -> None:
        """Store the report among the run's files, and wait until everything is written."""
        if self._files.report is not None:
            copy = shutil.copy(self._files.report, self._run.dir)  # `save` would only link to it
            self._run.save(copy, base_path=self._run.dir, policy="now")
        folder = Path(self._run.dir).parent
        offline = self._run.offline
        self._run.finish()
        if offline:
            _remove_other_folders(folder, self._run.id)

    def _define_axes(self) -> None:
        """Set the axis of each group of figures, which W&B's charts then use."""
        for axis in Axis:
            self._run.define_metric(axis.value, hidden=True)
        prefixes = {name.partition("/")[0] for row in self._rows for name in row.values}
        axes = {prefix: axis for axis, prefix in CURVES.items()}
        for prefix in sorted(prefixes - set(Axis)):
            axis = axes.get(prefix, Axis.GENERATION)
            self._run.define_metric(f"{prefix}/*", step_metric=axis.value)


def _remove_other_folders(folder: Path, run_id: str) -> None:
    """Remove the offline folders of the same run that earlier generations wrote."""
    for other in folder.parent.glob(f"offline-run-*-{run_id}"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
