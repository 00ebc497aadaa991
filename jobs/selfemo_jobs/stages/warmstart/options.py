"""The options of a supervised training: each is declared once, with the reason for its default.

The command ``selfemo model warm-start`` makes its options from these types, and the studies' files
use :class:`TrainingOptions` as they are. The stage fills them from the spec. This module needs no
torch.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, Share
from selfemo_api.spec import Precision, View


class TrainingOptions(ApiModel):
    """How the weights are trained, whatever the model is asked."""

    steps: Annotated[int, Field(ge=1)] = 120
    """Number of optimizer steps. With the default batch size, 120 steps read the labeled utterances
    of about a hundred dialogues twice."""
    batch_size: Annotated[int, Field(ge=1)] = 24
    """Number of examples per step, for both roles together. 24 examples contain most emotions and
    fit on a CPU with little memory."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Peak learning rate, after the warmup. 3e-4 suits full training of a model with a few hundred
    million parameters; a model with billions needs about 1e-5."""
    responder_share: Share = 0.25
    """Fraction of examples that train the responder. One quarter, because the evaluation measures
    recognition."""
    freeze_embeddings: bool = False
    """Do not train the embeddings and the output head. Off by default, because it only helps if
    they are half of a small model's weights: a few hundred dialogues teach them nothing."""
    views: list[View] = []
    """How much of the dialogue the recognizer's examples show. Each utterance yields one example
    per view. Specify the views of `reward.judge.views` to train the judge on them. By default, the
    examples show `past` turns."""
    train_layers: Annotated[int, Field(ge=1)] | None = None
    """Train only this many of the last layers. By default, all layers are trained."""
    precision: Precision = Precision.FLOAT32
    """Number format of matrix products on a CPU: `Float32` or `BFloat16`. Weights stay float32.
    Float32 is exact. BFloat16 takes about half the time on CPUs with BFloat16 instructions."""


class WarmStartOptions(TrainingOptions):
    """How the weights are trained, and what the model is asked."""

    prompts: str = "compact-v1"
    """The prompt set. Use the evolution's `model.prompts`. `compact-v1` is for small models, such
    as those that are warm-started on one machine."""
    past: Annotated[int, Field(ge=0, le=64)] = 1
    """Number of turns before the target turn that a prompt shows. Use the evolution's
    `dataset.context.past`. One turn keeps the prompts short and training on a CPU fast."""
    max_prompt_tokens: Annotated[int, Field(ge=32, le=32768)] = 256
    """Maximum prompt length; longer prompts lose their oldest turns. 256 tokens hold a few
    turns."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed for the order of examples and for dropout."""


def share_of(dialogues: int, share: float) -> int:
    """Return the number of dialogues in a share, at least one.

    Parameters
    ----------
    dialogues
        The number of all dialogues.
    share
        The share, in (0, 1].

    Examples
    --------
    >>> share_of(1038, 0.1)
    104
    """
    return max(1, round(dialogues * share))
