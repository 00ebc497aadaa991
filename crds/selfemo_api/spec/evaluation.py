"""``spec.evaluation``: how a generation is evaluated."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsLabel
from selfemo_api.spec.fields import EXPERT
from selfemo_api.spec.self_play import Engine


class MultiLabel(StrEnum):
    """When the labels of an utterance are compared as a set."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class EvaluationSpec(ApiModel):
    """How a generation is evaluated."""

    selection_dataset: Annotated[DnsLabel | None, EXPERT] = None
    """The name of the evaluation source that decides promotion. Defaults to the first source with
    `use: Evaluation`."""
    use_label_prior: bool = False
    """Whether the utterances of the selection dataset are weighted so that its emotions have the
    frequencies in `dataset.labelPrior`. F1 (weighted, strict, macro and by label), accuracy and the
    confidence interval then use these weights. Other evaluation sources are not weighted. Set it if
    the emotions of the selection dataset are not as frequent as in production: otherwise, a
    generation that is worse in production can be promoted (see docs/studies). This field is
    immutable."""
    multi_label: MultiLabel = MultiLabel.AUTO
    """Whether all labels of an utterance are compared as a set. `Auto`: for each source that
    contains an utterance with several labels. `Always`: for every source. `Never`: only the first
    label of the utterance and of the answer counts. If sets are compared, promotion uses the
    weighted F1 over the labels of the sets. The base value is `Auto`: no label is ignored, and a
    source with one label per utterance has the same metrics as published work."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000), EXPERT] = 1000
    """The number of bootstrap resamples, each of whole dialogues, for the 95% confidence interval
    of the weighted F1. If 0, no interval is computed. 1000 resamples determine its second digit."""
    engine: Annotated[Engine | None, EXPERT] = None
    """The engine that generates the answers. Defaults to the engine of self-play."""
    batch_size: Annotated[int, Field(ge=1, le=4096), EXPERT] = 32
    """The number of prompts per batch of the `Transformers` engine. The `VLLM` engine forms its own
    batches."""
