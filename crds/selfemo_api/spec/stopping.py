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
    """Bounds of the signs of collapse.

    If one is crossed, the run ends with the phase `Collapsed`, and the best generation so far
    remains the result.
    """

    min_entropy: Share = 0.35
    """The lowest entropy of the predicted labels, as a share of the baseline's entropy. In the
    studies, every promoted generation had more than 1, and random rewards left at least 0.63. In
    both runs that were made to collapse, it fell to 0.00 at once."""
    max_divergence: Share = 0.3
    """The highest Jensen-Shannon divergence (base 2, from 0 to 1) of the predicted labels from the
    baseline's. It was at most 0.09 in the studies, 0.26 with random rewards, and 0.76 and 1.00 in
    the collapses. 0.3 leaves room for a baseline that is corrected. A generation that is better
    than the best, and whose entropy is at least the baseline's, may be above it: from a baseline
    that names one label, right labels are further away."""
    max_zero_variance: Share = 0.98
    """The highest share of the groups of a role whose rewards are all equal. Such groups teach
    nothing. Above 0.98, a step of 28 groups, as in the studies, has on average less than one that
    teaches. With `training.imitation`, the recognizer's groups teach their consensus, and only the
    responder's share counts."""
    min_diversity: Share = 0.02
    """The lowest share of distinct bigrams among all bigrams of some 512 responses of a generation.
    The same response to everything has 0.002 there, and ten in turn have 0.02. The demo's few
    hundred responses have 0.88."""


class StoppingSpec(ApiModel):
    """When an evolution stops. Edits take effect at once."""

    max_generations: Annotated[int, Field(ge=1, le=999)] = 4
    """The number of the last generation. Runs without labels gain in the first few generations and
    degrade later (R-Zero: 3-4)."""
    goal: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """The weighted F1 on the selection dataset, from 0 to 1, at which the evolution has succeeded
    and stops. Unset: it has no goal."""
    patience: Annotated[int, Field(ge=1, le=999)] = 2
    """The number of generations in a row that are not better than the best, after which the
    evolution stops with the reason `Plateaued`. With two, a single bad generation does not end the
    run."""
    collapse: Annotated[CollapseBounds, EXPERT] = CollapseBounds()
    """Bounds of the signs of collapse, at which the evolution ends."""


class PromotionSpec(ApiModel):
    """When a generation replaces the best one."""

    min_delta: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """The difference of F1 that a generation must exceed to be better than the best. With 0, any
    rise is enough."""
    on_regression: OnRegression = OnRegression.ROLL_BACK
    """What happens after a generation that is not better than the best. `RollBack` starts the next
    one from the best, so that nothing is built on a worse model. `Continue` starts it from the
    worse one. `Stop` ends the evolution."""
