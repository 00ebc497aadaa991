"""``spec.evaluation``: how a generation is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsLabel, Share
from selfemo_api.spec.self_play import Engine


class EvaluationSpec(ApiModel):
    """How a generation is measured."""

    selection_dataset: DnsLabel | None = None
    """The evaluation source that decides promotion. Unset: the first."""
    label_prior: Annotated[dict[str, Share], Field(min_length=2, max_length=64)] | None = None
    """The share of each emotion where the model is to be used. The selecting source's utterances
    then weigh as much as it takes for its emotions to have these shares: F1 (weighted, strict,
    macro, by label), accuracy and the interval are those of such a source. Other sources count as
    they come. Unset: so does the selecting one. For a source whose emotions are spread otherwise,
    which can promote a model that is worse in use (docs/studies); worth it only where the shares
    are well known."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamples (of whole dialogues) for the 95 % interval; 1000 fix its second digit."""
    engine: Engine | None = None
    """Unset: the engine of self-play."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
