"""``spec.stopping`` and ``spec.promotion``: when an evolution stops, and what it builds on."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, Share
from selfemo_api.spec.fields import EXPERT


class OnRegression(StrEnum):
    """What happens after a generation that is not better than the best."""

    ROLL_BACK = "RollBack"
    CONTINUE = "Continue"
    STOP = "Stop"


class CollapseBounds(ApiModel):
    """The collapse thresholds.

    If a threshold is crossed, the run ends in the `Collapsed` phase, and the best generation so far
    remains the result.
    """

    min_entropy: Share = 0.35
    """The minimum entropy of the predicted labels, as a fraction of the baseline's entropy. In the
    studies, every promoted generation was above 1, and random rewards left at least 0.63. In both
    runs that were made to collapse, it fell to 0.00 immediately."""
    max_divergence: Share = 0.3
    """The maximum Jensen-Shannon divergence (base 2, from 0 to 1) of the predicted labels from the
    baseline's. It was at most 0.09 in the studies, 0.26 with random rewards, and 0.76 and 1.00 in
    the collapses. 0.3 leaves room for correcting the baseline. A generation that is better than the
    best, and whose entropy is at least the baseline's, may be above it: if the baseline predicts
    only one label, correct labels are further away."""
    max_zero_variance: Share = 0.98
    """The maximum fraction of a role's groups whose rewards are all equal. Such groups teach
    nothing. Above 0.98, a step of 28 groups, as in the studies, has on average less than one group
    that teaches. With `training.imitation`, the recognizer groups teach their consensus, and only
    the responder's fraction counts."""
    min_diversity: Share = 0.02
    """The minimum fraction of distinct bigrams among all bigrams of about 512 responses of a
    generation. If all responses are the same, it is 0.002, and if ten responses alternate, it is
    0.02. For the few hundred responses of the demo, it is 0.88."""


class StoppingSpec(ApiModel):
    """When an evolution stops. Edits take effect immediately."""

    max_generations: Annotated[int, Field(ge=1, le=999)] = 4
    """The number of the last generation. Runs without labels improve in the first few generations
    and degrade later (R-Zero: 3-4)."""
    goal: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The weighted F1 on the selection dataset, from 0 to 1, at which the evolution succeeds and
    stops. If unset, there is no goal."""
    patience: Annotated[int, Field(ge=1, le=999)] = 2
    """The number of consecutive generations that are not better than the best, after which the
    evolution stops with the reason `Plateaued`. With two, a single bad generation does not end the
    run."""
    collapse: Annotated[CollapseBounds, EXPERT] = CollapseBounds()
    """The collapse thresholds, at which the evolution ends."""


class PromotionSpec(ApiModel):
    """When a generation replaces the best one."""

    min_delta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """The F1 difference that a generation must exceed to be better than the best. With 0, any
    increase is enough."""
    on_regression: OnRegression = OnRegression.ROLL_BACK
    """What happens after a generation that is not better than the best. `RollBack` starts the next
    generation from the best one, so that no generation builds on a worse model. `Continue` starts
    it from the worse one. `Stop` ends the evolution."""
