"""``spec.reward``: how candidates are scored."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule, Share


class JudgeModel(StrEnum):
    """Which frozen model reads and scores."""

    BASELINE = "Baseline"
    BEST = "Best"
    POLICY = "Policy"


class Signal(StrEnum):
    """What the rewards say."""

    OVERLAP = "Overlap"
    RANDOM = "Random"


class GroupWeight(StrEnum):
    """What a group's advantages are multiplied by."""

    CONSISTENCY = "Consistency"
    NONE = "None"


class RewardWeights(ApiModel):
    """Weights of the reward's terms."""

    alignment: Share = 0.7
    """Agreement with the consensus or the intended emotions: the aim itself, so the most."""
    consistency: Share = 0.2
    """Agreement within the group."""
    format: Share = 0.1
    """Well-formed answers; small, since a warm-started model rarely misses it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.alignment + self.consistency + self.format > 0.0",
            "one of `alignment`, `consistency`, `format` must be above 0",
        ),
    )


class View(ApiModel):
    """How much of the dialogue one reading of the judge sees around the target utterance."""

    past: Annotated[int, Field(ge=0, le=64)] = 0
    """Turns before the target."""
    future: Annotated[int, Field(ge=0, le=64)] = 0
    """Turns after it: hindsight that the policy does not have. An appended turn has none."""


class JudgeSpec(ApiModel):
    """The frozen reader that scores."""

    model: JudgeModel = JudgeModel.BEST
    """`Best` follows the promoted generation; it is frozen within a generation, and gated by F1.
    `Policy` is the model that played: with `weight: 0` the model grades itself, an ablation."""
    samples: Annotated[int, Field(ge=1, le=64)] = 4
    """Readings of each response; four give q in steps of a quarter."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Longest reading. Unset: ``selfPlay.maxTokens.recognizer``. Where each label is one token and
    an utterance has one label, 1 halves the work: what follows the label is not read."""
    views: Annotated[list[View], Field(max_length=8)] = []
    """What the judge sees around a target: it reads it `samples` times in each view, and its vote
    is the mean. Empty: it reads the very prompt that the policy was given."""
    weight: Share = 0.5
    """The judge's share in the consensus beside the group's own votes; 0 is self-grading."""


class RewardSpec(ApiModel):
    """How candidates are scored."""

    signal: Signal = Signal.OVERLAP
    """`Random` draws each reward from 0 to 1 by the seed: the control that must not gain."""
    smoothing: Annotated[float, Field(ge=0.0, le=10.0)] = 0.1
    """s of the smoothed IoU: keeps a gradient between a near miss and a far one. 0 is the plain
    IoU, an ablation."""
    consensus: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """tau: the share of votes from which an emotion is in the consensus. A plain majority."""
    weights: RewardWeights = RewardWeights()
    group_weight: GroupWeight = GroupWeight.CONSISTENCY
    """A group that agrees more counts more; `None` weighs all alike, an ablation."""
    judge: JudgeSpec = JudgeSpec()
    min_words: Annotated[int, Field(ge=0, le=1000)] = 2
    """Responses with fewer words are penalized."""
    max_words: Annotated[int, Field(ge=1, le=4000)] = 40
    """Responses with more words are penalized; MELD's 99th percentile is 31."""
    penalty: Share = 0.5
    """Taken off for each: naming the intended emotion, repeating the context, bad length."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.minWords < self.maxWords", "`minWords` must be below `maxWords`"),
    )
