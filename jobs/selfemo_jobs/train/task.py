"""What the stage hands to its worker processes, and what they hand back: files in the work folder."""

from __future__ import annotations

from pathlib import Path

from selfemo_api.base import ApiModel
from selfemo_api.training import TrainingSpec


class TrainTask(ApiModel):
    """All that a worker needs; the model and the rows are local by now."""

    training: TrainingSpec
    policy: str
    """Folder of the model to train."""
    anchor: str | None = None
    """Folder of the anchor; only where there is a KL to it."""
    rows: list[str]
    """Parquet files of the flywheel."""
    temperature: float
    group_size: int
    seed: int
    work: str
    """Checkpoints, recomputed log-probabilities, and at the end the model."""

    @property
    def folder(self) -> Path:
        """The work folder."""
        return Path(self.work)

    @property
    def model(self) -> Path:
        """Where the trained model (or adapter) is left."""
        return self.folder / "trained"


class TrainFigures(ApiModel):
    """What training came to. No times: manifests hold none."""

    steps: int
    tokens: int
    """Completion tokens trained on."""
    metrics: dict[str, float] = {}


class WorkerError(ApiModel):
    """Why a worker ended."""

    kind: str
    message: str


FIGURES = "figures.json"
ERROR = "error.json"
