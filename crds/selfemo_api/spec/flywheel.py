"""``spec.flywheel``: which groups are kept and fed back."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule, Share


class FlywheelRunner(StrEnum):
    """Where the flywheel's dataframe program runs."""

    IN_PROCESS = "InProcess"
    RAY = "Ray"


class Band(ApiModel):
    """A closed range of consistency."""

    min: Share = 0.3
    """Below, the group does not know (R-Zero and SeRL keep 0.2-0.3 and up)."""
    max: Share = 1.0
    """R-Zero cuts at 0.8; measured here, unanimous groups are the most often right, and
    zero-variance groups are dropped by the trainer anyway."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule("self.min < self.max", "`min` must be below `max`"),)


class Deduplicate(ApiModel):
    """Removal of repeated rows."""

    exact: bool = True
    """Same role, same prompt, same completions."""
    near: bool = True
    """MinHash over word 3-grams of responses."""
    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Estimated Jaccard from which two responses are one; the usual value of web-text pipelines."""


class FlywheelSpec(ApiModel):
    """Which groups are kept and fed back."""

    min_reward: Annotated[float, Field(ge=-2.0, le=1.0)] = 0.3
    """Mean reward of a group; below it even the best candidates are doubtful."""
    consistency: Band = Band()
    keep: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Of each emotion's groups, the share that is kept: the most reliable (confidence times
    consistency times reward) come first. Emotions are never weighed against each other, so rare
    ones survive (class-balanced self-training, Zou et al. 2018)."""
    label_prior: Annotated[dict[str, Share], Field(min_length=2, max_length=64)] | None = None
    """The share of each emotion among the utterances, where it is known (of a labeled share, say).
    Then `keep` counts against it: of the recognizer's groups, `keep` times that share stay."""
    max_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Largest share of one emotion among the kept groups of a role (the balance cap). Below the
    share that an emotion has in truth it teaches wrong expectations: 0.3, where half are neutral,
    took MELD's test F1 from 0.490 to 0.458 in a generation, promoted by a dev set with fewer of
    them (docs/studies). Where the shares are known, `labelPrior` is better, and
    `evaluation.labelPrior` kept such a generation from being promoted there."""
    replay: Share = 0.2
    """Rows of earlier generations added, as a share of the new ones; accumulating bounds drift."""
    deduplicate: Deduplicate = Deduplicate()
    runner: FlywheelRunner = FlywheelRunner.IN_PROCESS
    """`Ray` runs the same program on a Ray cluster, for tables larger than one machine."""
    ray_address: Annotated[str, Field(max_length=253)] | None = None
