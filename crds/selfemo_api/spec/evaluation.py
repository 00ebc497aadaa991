"""``spec.evaluation``: how a generation is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsLabel, Share
from selfemo_api.spec.self_play import Engine


class EvaluationSpec(ApiModel):
    """How a generation is measured."""

    selection_dataset: DnsLabel | None = None
    """The name of the evaluation source that decides promotion. Unset: the first source of
    `dataset.evaluation`."""
    label_prior: Annotated[dict[str, Share], Field(min_length=2, max_length=64)] | None = None
    """The share of each emotion where the model will be used, from 0 to 1. If set, the utterances
    of the selection dataset are weighted so that its emotions have these shares. F1 (weighted,
    strict, macro and by label), accuracy and the confidence interval then use these weights. Other
    evaluation sources are not weighted. Set it if the emotions of the selection dataset are not as
    frequent as in use: without it, a generation can be promoted that is worse in use (see
    docs/studies). Set it only if the shares are well known. Unset: no source is weighted."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """The number of bootstrap resamples, each of whole dialogues, for the 95 % confidence interval
    of the weighted F1. 0: no interval. 1000 resamples determine its second digit."""
    engine: Engine | None = None
    """The engine that generates the answers. Unset: the engine of self-play."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """The number of prompts that the engine `Transformers` answers together. `VLLM` forms batches
    of its own."""
