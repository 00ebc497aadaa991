"""``spec.publish`` and ``spec.trackers``: where models and metrics go besides the storage."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

#: The URI to which promoted models are copied.
PublishUri = Annotated[
    str, Field(min_length=6, max_length=1024, pattern=r"^(hf|s3|file)://[^\s\p{Z}]+$")
]


class Tracker(StrEnum):
    """An experiment tracker. It is configured by its own environment variables."""

    MLFLOW = "MLflow"
    WANDB = "WandB"
    TRACKIO = "Trackio"
    TENSORBOARD = "TensorBoard"
