"""What the stage hands to the processes that train, and what comes back; both as JSON files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import TrainingSpec
from selfemo_jobs.store.local_files import write_file


class TrainJob(ApiModel):
    """One training, as its processes see it."""

    training: TrainingSpec
    seed: int
    prompts: str
    """Name of the prompt set: how an answer is written."""
    temperature: float
    """That completions were sampled with: the policy is the tempered distribution."""
    folder: Path
    """Scratch folder of this training, on each node."""
    policy: Path
    """Folder of the model to train."""
    reference: Path | None = None
    """Folder of the model that the KL is taken to; None: the policy as it starts."""

    @property
    def rows(self) -> Path:
        """Parquet of the recorded rows."""
        return self.folder / "rows.parquet"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the finished model."""
        return self.folder / "model"

    @property
    def result(self) -> Path:
        """Written last: with it the training is over."""
        return self.folder / "result.json"

    def failure(self, rank: int) -> Path:
        """Return where a process says why it failed."""
        return self.folder / f"failure-{rank}.json"


class TrainResult(ApiModel):
    """What training found."""

    metrics: dict[str, float]


class TrainFailure(ApiModel):
    """Why a process ended."""

    kind: Annotated[str, Field(max_length=64)]
    error: str
    when: int
    """Nanoseconds of the wall clock: the first failure is the cause, others follow from it."""


def write_json(path: Path, value: ApiModel) -> None:
    """Write a model as JSON, whole or not at all."""
    write_file(path, value.model_dump_json(by_alias=True, indent=1).encode())


def failures(folder: Path) -> list[TrainFailure]:
    """Return what failing processes said, the first one first."""
    said = [TrainFailure.model_validate_json(p.read_bytes()) for p in folder.glob("failure-*.json")]
    return sorted(said, key=lambda f: f.when)


def rank() -> int:
    """Return this process's number among all (torchrun's `RANK`)."""
    return int(os.environ["RANK"])


def local_rank() -> int:
    """Return this process's number on its node."""
    return int(os.environ["LOCAL_RANK"])
