"""``spec.flywheel``: which groups are used for the next training."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule, Share
from selfemo_api.spec.fields import EXPERT


class FlywheelRunner(StrEnum):
    """Where the flywheel's dataframe program runs."""

    IN_PROCESS = "InProcess"
    RAY = "Ray"


class Band(ApiModel):
    """A closed range of consistency, from 0 to 1."""

    min: Share = 0.3
    """The minimum consistency of a kept group. Below it, the model does not know the answer. R-Zero
    and SeRL keep groups from 0.2-0.3 upwards."""
    max: Share = 1.0
    """The maximum consistency of a kept group. 1 removes no group. R-Zero uses 0.8, but in our
    measurements unanimous groups are correct most often. Groups whose rewards are all equal have a
    separate filter."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.min < self.max", "`min` must be less than `max`"),
    )


class Deduplicate(ApiModel):
    """Which repeated groups are dropped."""

    exact: bool = True
    """Whether a group is dropped if another group has the same role, prompt and completions. The
    base value is true, because a repeated group would count twice."""
    near: bool = True
    """Whether a responder group is dropped if another group has nearly the same best response.
    MinHash over word 3-grams estimates the similarity. The base value is true, because a responder
    that repeats one response is close to collapse."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """The Jaccard similarity, from 0 to 1, at which two responses count as nearly the same. 0.8 is
    the usual value for web text."""


class FlywheelSpec(ApiModel):
    """Which groups of candidates are used for the next training."""

    min_reward: Annotated[float, Field(ge=-2.0, le=1.0), EXPERT] = 0.3
    """The minimum mean reward of a kept group. Below 0.3, even the best candidates are doubtful."""
    consistency: Annotated[Band, EXPERT] = Band()
    """The range of consistency of a kept group."""
    keep: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The fraction of groups to keep, from 0 to 1, within each role and set of emotions. The most
    reliable groups are kept: those with the highest confidence, consistency and reward. Emotions do
    not compete with each other, so rare emotions are kept (class-balanced self-training, Zou et al.
    2018). 1 keeps all groups."""
    use_label_prior: bool = False
    """Whether `keep` refers to `dataset.labelPrior`. If true, each emotion keeps at most `keep`
    times its prior times the number of scored recognizer groups. If false, `keep` refers to the
    groups that have the emotion. `paper-v1` uses false, because it needs no labels."""
    max_share: Annotated[float, Field(gt=0.0, le=1.0), EXPERT] = 0.5
    """The maximum fraction of one emotion, from 0 to 1, among the kept groups of a role (the
    balance cap). Do not set it below the true frequency of an emotion: otherwise, the model learns
    wrong frequencies. On MELD, half of the utterances are neutral. There, 0.3 lowered the test F1
    from 0.490 to 0.458 in one generation, which was promoted because the dev set has fewer neutral
    utterances (see docs/studies). If the frequencies are known, `useLabelPrior` is better, and
    `evaluation.useLabelPrior` prevented the promotion of such a generation."""
    replay: Annotated[Share, EXPERT] = 0.2
    """The number of groups of earlier generations to add, as a fraction of the new groups.
    Accumulating earlier data limits the drift of self-training."""
    deduplicate: Annotated[Deduplicate, EXPERT] = Deduplicate()
    """Which repeated groups are dropped."""
    runner: Annotated[FlywheelRunner, EXPERT] = FlywheelRunner.IN_PROCESS
    """Where the flywheel's dataframe program runs. `InProcess` is the stage's own process. `Ray`
    runs the same program on a Ray cluster, for tables that do not fit on one machine."""
    ray_address: Annotated[Annotated[str, Field(max_length=253)] | None, EXPERT] = None
    """The address of the Ray cluster. Required with `runner: Ray`."""
