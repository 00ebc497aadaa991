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
    """Steps of the optimizer. With the default batch, 120 steps read the labeled utterances of
    about a hundred dialogues twice."""
    batch_size: Annotated[int, Field(ge=1)] = 24
    """Examples of a step, of both roles together. 24 have most emotions among them, and a CPU with
    little memory trains on them."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """The highest learning rate, after the warm-up. 3e-4 suits all weights of a model of some
    hundred million parameters; a model of billions needs about 1e-5."""
    responder_share: Share = 0.25
    """The share of examples that teach the responder. A quarter, because recognition is what the
    evaluation measures."""
    freeze_embeddings: bool = False
    """Leave the embeddings and the output head as they are. Off, because it pays only where they
    are half of a small model's weights: a few hundred dialogues teach them nothing."""
    views: list[View] = []
    """How much of the dialogue the recognizer's examples show: each utterance gives one example in
    each view. Give the views of `reward.judge.views`, so that the judge has learned to read them.
    Without one, the examples show `past` turns."""
    train_layers: Annotated[int, Field(ge=1)] | None = None
    """Train only this many of the last layers. Without it, all are trained."""
    precision: Precision = Precision.FLOAT32
    """The number format of products on a CPU: `Float32` or `BFloat16`. Weights stay float32.
    Float32 is exact. BFloat16 takes about half of the time on processors with instructions for
    it."""


class WarmStartOptions(TrainingOptions):
    """How the weights are trained, and what the model is asked."""

    prompts: str = "compact-v1"
    """The prompt set; give the evolution's `model.prompts`. `compact-v1` is for small models, which
    are those that are warm-started on one machine."""
    past: Annotated[int, Field(ge=0, le=64)] = 1
    """Turns before the target that a prompt shows; give the evolution's `dataset.context.past`. One
    turn keeps the prompts short, and so the training on a CPU fast."""
    max_prompt_tokens: Annotated[int, Field(ge=32, le=32768)] = 256
    """The longest prompt; longer ones lose their oldest turns. 256 tokens hold a few turns."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The seed of the order in which examples are read, and of dropout."""


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
