"""``spec.warmStart``: supervised training on the labeled sources, before generation 0."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, Share
from selfemo_api.spec.fields import EXPERT


class WarmStartSpec(ApiModel):
    """Supervised training on the labeled sources, which produces the model of generation 0.

    It trains the weights that `training.lora` or `training.trainLayers` select, without the
    embeddings. It ends when the weighted F1 on the selection dataset stops rising, and keeps the
    best weights.
    """

    steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """The maximum number of optimizer steps. If 0, there is no warm start, and `model.uri` is
    generation 0."""
    patience: Annotated[int, Field(ge=1, le=1000), EXPERT] = 3
    """The number of consecutive evaluations without a higher F1, after which the warm start ends.
    With three, one unlucky evaluation does not end it."""
    evaluation_steps: Annotated[int, Field(ge=1, le=100_000), EXPERT] = 40
    """The number of steps between two evaluations on the selection dataset. 40 steps of 24 examples
    cover the utterances of a hundred dialogues about once."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0), EXPERT] = 3e-4
    """The maximum learning rate, after the warm-up. 3e-4 suits small models and adapters. To train
    all weights of a model with billions of parameters, use about 1e-5."""
    batch_size: Annotated[int, Field(ge=1, le=4096), EXPERT] = 24
    """The number of examples per step, of both roles together. 24 examples contain most
    emotions."""
    responder_share: Annotated[Share, EXPERT] = 0.25
    """The fraction of examples, from 0 to 1, that teach the responder. It is a quarter, because the
    evaluation measures recognition. It also weights the responses that training imitates if the
    responder plays."""
