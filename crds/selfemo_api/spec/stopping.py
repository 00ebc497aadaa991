"""``spec.evolution``: when an evolution stops, and what it keeps."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, Share


class OnRegression(StrEnum):
    """What follows a generation that is worse than the best."""

    ROLL_BACK = "RollBack"
    CONTINUE = "Continue"
    STOP = "Stop"


class Goal(ApiModel):
    """Stop when reached."""

    f1: Annotated[float, Field(gt=0.0, le=1.0)]
    """Weighted F1 on the selecting source."""


class CollapseBounds(ApiModel):
    """Past one of these the run is `Collapsed` and rolled back."""

    min_entropy: Share = 0.35
    """Normalized entropy of the predicted labels, as a share of generation 0's. In the learning
    studies every promoted generation had more than 1, random rewards 0.63 at least; in both runs
    made to collapse it fell to 0.00 at once."""
    max_divergence: Share = 0.3
    """Jensen-Shannon divergence (base 2) of predicted labels from generation 0's. In the studies at
    most 0.09, with random rewards 0.26; 0.76 and 1.00 in the collapses. An evolution may mend a
    skewed generation 0: hence the room."""
    max_zero_variance: Share = 0.98
    """Share of groups whose rewards are all equal: they teach nothing. Above 0.98 a step of 28
    groups, as the study's, has less than one that does."""
    min_diversity: Share = 0.02
    """Distinct bigrams over all bigrams of the responses. One response said n times has 1/n; the
    demo's few hundred have 0.88, and more of them have less."""


class EvolutionPolicy(ApiModel):
    """How long it goes on, and what is kept."""

    max_generations: Annotated[int, Field(ge=1, le=999)] = 4
    """Label-free runs gain in the first few rounds and degrade after (R-Zero: 3-4)."""
    goal: Goal | None = None
    patience: Annotated[int, Field(ge=1, le=999)] = 2
    """Generations without a better F1 before the run is `Plateaued`."""
    min_delta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """F1 must rise by more than this to count as better."""
    on_regression: OnRegression = OnRegression.ROLL_BACK
    """A worse generation is not built upon."""
    collapse: CollapseBounds = CollapseBounds()
