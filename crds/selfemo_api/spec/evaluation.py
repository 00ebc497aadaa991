"""``spec.evaluation``: how a generation is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsLabel
from selfemo_api.spec.fields import EXPERT
from selfemo_api.spec.self_play import Engine


class EvaluationSpec(ApiModel):
    """How a generation is measured."""

    selection_dataset: Annotated[DnsLabel | None, EXPERT] = None
    """The name of the evaluation source that decides promotion. Unset: the first source
    with the use `Evaluation`."""
    use_label_prior: bool = False
    """Whether the utterances of the selection dataset are weighted so that its emotions have the
    shares in `dataset.labelPrior`. F1 (weighted, strict, macro and by label), accuracy and the
    confidence interval then use these weights. Other evaluation sources are not weighted. Set it if
    the emotions of the selection dataset are not as frequent as in use: without it, a generation
    can be promoted that is worse in use (see docs/studies). It is immutable."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000), EXPERT] = 1000
    """The number of bootstrap resamples, each of whole dialogues, for the 95 % confidence interval
    of the weighted F1. 0: no interval. 1000 resamples determine its second digit."""
    engine: Annotated[Engine | None, EXPERT] = None
    """The engine that generates the answers. Unset: the engine of self-play."""
    batch_size: Annotated[int, Field(ge=1, le=4096), EXPERT] = 32
    """The number of prompts that the engine `Transformers` answers together. `VLLM` forms batches
    of its own."""
