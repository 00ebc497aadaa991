"""The JSON files between the stage and its training processes.

The stage writes a :class:`TrainJob`. The processes write a :class:`TrainResult`, or a
:class:`TrainFailure` each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import Precision, ResourcesSpec, TrainingSpec
from selfemo_jobs.store.local_files import write_file

#: The environment variable with the file in which the processes of one node meet. It must not exist
#: before they start.
ENV_GROUP = "SELFEMO_GROUP_FILE"


class TrainJob(ApiModel):
    """The input of the training processes."""

    evolution: str = ""
    """The name of the evolution, for the metrics of the training."""
    training: TrainingSpec
    """The field ``spec.training``."""
    resources: ResourcesSpec
    """The field ``spec.resources``."""
    seed: int
    """The seed of the stage."""
    prompts: str
    """Name of the prompt set, which defines how an answer to imitate is written."""
    prompt_templates: dict[str, str] = {}
    """Texts that replace those of the prompt set."""
    responder_share: float = 0.0
    """The field ``warmStart.responderShare`` if responses are imitated, otherwise 0. It weights
    them."""
    labels: list[str] = []
    """The label set, which the responder's prompts may name."""
    max_prompt_tokens: int = 0
    """The most tokens of the responder's prompts."""
    max_response_tokens: int = 0
    """The most tokens of an imitated turn. A longer one loses its end."""
    temperature: float
    """The temperature at which the completions were sampled. The policy is the distribution at this
    temperature."""
    folder: Path
    """Scratch folder of this training, on each node."""
    policy: Path
    """Folder of the model to train."""
    reference: Path | None = None
    """Folder of the reference of the KL term. With None it is the policy as training starts."""

    @property
    def bfloat16_weights(self) -> bool:
        """Whether the weights that a forward pass reads are bfloat16."""
        return self._in_bfloat16 and self.resources.gpus_per_node > 0

    @property
    def bfloat16_products(self) -> bool:
        """Whether a forward pass rounds float32 weights for its products, as on a CPU."""
        return self._in_bfloat16 and self.resources.gpus_per_node == 0

    @property
    def _in_bfloat16(self) -> bool:
        return self.training.precision is Precision.BFLOAT16

    @property
    def rows_folder(self) -> Path:
        """Folder with the rows to train on, see :mod:`selfemo_jobs.stages.train.rollout_files`."""
        return self.folder / "rows"

    @property
    def checkpoints_folder(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def model_folder(self) -> Path:
        """Folder of the trained model."""
        return self.folder / "model"

    @property
    def result_file(self) -> Path:
        """File of the result. It is written last: if it exists, the training is complete."""
        return self.folder / "result.json"

    def failure_file(self, rank: int) -> Path:
        """Return the file in which a process reports its failure.

        Parameters
        ----------
        rank
            Number of the process among all.

        Returns
        -------
        Path
            The file.
        """
        return self.folder / f"failure-{rank}.json"


class TrainResult(ApiModel):
    """The result of a training."""

    metrics: dict[str, float]
    """The metrics by name."""
    steps: dict[str, list[float]] = {}
    """The values of the optimizer steps, see :mod:`selfemo_jobs.runtime.step_curve`."""


class TrainFailure(ApiModel):
    """The reason why a process failed."""

    kind: Annotated[str, Field(max_length=64)]
    """Kind of the error, as :mod:`selfemo_jobs.errors` names it."""
    error: str
    """The message, in one line."""
    when: int
    """Time of the failure, in nanoseconds of the wall clock. The first failure is the cause; the
    other processes fail because of it."""


def write_json(path: Path, value: ApiModel) -> None:
    """Write an object as JSON. The file is replaced as a whole.

    Parameters
    ----------
    path
        The file to write.
    value
        The object.
    """
    write_file(path, value.model_dump_json(by_alias=True, indent=1).encode())


def read_failures(folder: Path) -> list[TrainFailure]:
    """Return the failures that processes reported, the first one first.

    Parameters
    ----------
    folder
        Scratch folder of the training.

    Returns
    -------
    list of TrainFailure
        The failures, ordered by time.
    """
    files = folder.glob("failure-*.json")
    failures = [TrainFailure.model_validate_json(file.read_bytes()) for file in files]
    return sorted(failures, key=lambda failure: failure.when)


def rank() -> int:
    """Return the number of this process among all (torchrun's `RANK`)."""
    return int(os.environ["RANK"])


def local_rank() -> int:
    """Return the number of this process on its node (torchrun's `LOCAL_RANK`)."""
    return int(os.environ["LOCAL_RANK"])
