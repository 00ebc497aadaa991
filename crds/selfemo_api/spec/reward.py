"""``spec.reward``: how candidates are scored."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, Rule, Share


class JudgeModel(StrEnum):
    """The model that is the judge."""

    BASELINE = "Baseline"
    BEST = "Best"
    POLICY = "Policy"


class Signal(StrEnum):
    """What the rewards are computed from."""

    OVERLAP = "Overlap"
    RANDOM = "Random"


class GroupWeight(StrEnum):
    """What a group's advantages are multiplied by."""

    CONSISTENCY = "Consistency"
    DEVIATION = "Deviation"
    NONE = "None"


class RewardWeights(ApiModel):
    """The weights of the terms of the reward."""

    alignment: Share = 0.7
    """The weight of alignment: the overlap with the consensus, or with the intended emotions. It
    has the largest weight, because it measures the goal itself."""
    consistency: Share = 0.2
    """The weight of the agreement within the group. For a response, it is the weight of the
    agreement of the judge samples, as far as they predict the intended emotions. It is lower than
    the weight of alignment: otherwise, agreement would be worth more than correctness."""
    format: Share = 0.1
    """The weight of a valid format. It is small, because a model rarely violates the format after a
    warm start."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.alignment + self.consistency + self.format > 0.0",
            "at least one of `alignment`, `consistency` and `format` must be greater than 0",
        ),
    )


class View(ApiModel):
    """How many turns around the target utterance the judge sees."""

    past: Annotated[int, Field(ge=0, le=64)] = 0
    """The number of turns before the target."""
    future: Annotated[int, Field(ge=0, le=64)] = 0
    """The number of turns after the target. The policy does not see them. A turn that self-play
    appended has no later turns."""


class JudgeSpec(ApiModel):
    """The judge: the frozen model that scores candidates."""

    model: JudgeModel = JudgeModel.BEST
    """The model that is the judge. `Best` is the best generation so far; it is frozen within a
    generation, and only promotion replaces it. `Baseline` is generation 0. `Policy` is the model
    that plays: with `weight: 0` the model grades itself, which is an ablation."""
    samples: Annotated[int, Field(ge=0, le=64)] = 4
    """The number of judge samples for each response, and for each target in each view. With four,
    the fraction of samples that name an emotion has steps of a quarter. If 0, nothing is sampled,
    and the vote for each label is its probability. Each utterance must then have one label."""
    max_tokens: Annotated[int, Field(ge=0, le=4096)] | None = None
    """The maximum number of tokens per judge sample. Defaults to `selfPlay.maxTokens.recognizer`.
    If 0, it is the number of tokens of the longest label. If each utterance has one label, this
    halves the work: the judge does not generate what would follow the label. If utterances have
    several labels, a judge sample has at least the tokens of an answer."""
    views: Annotated[list[View], Field(max_length=8)] = []
    """The views in which the judge sees each target. It samples each target `samples` times in each
    view, and its vote is the mean over all samples. Different views make its errors less alike. If
    empty, the judge sees the same prompt as the policy."""
    weight: Share = 0.5
    """The weight of the judge's vote in the consensus, from 0 to 1; the group's own votes have the
    remaining weight. 0.5 gives both the same weight. 0 means that the model grades itself."""


class RewardSpec(ApiModel):
    """How candidates are scored."""

    signal: Signal = Signal.OVERLAP
    """What the rewards are computed from. `Overlap` uses the overlap of label sets. `Random`
    samples each reward from 0 to 1 with the seed; it is a control that must not improve the
    model."""
    smoothing: Annotated[float, Field(ge=0.0, le=10.0)] = 0.1
    """The constant that is added to both counts of the IoU. It ranks answers without overlap: the
    fewer labels they name, the higher they score. With 0, the plain IoU, every such answer scores
    0; this is an ablation."""
    consensus: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """The fraction of votes from which an emotion belongs to the consensus. 0.5 is a plain
    majority. 0 is the aligned vote: one emotion wins, and each wins as often as
    `dataset.labelPrior` specifies."""
    weights: RewardWeights = RewardWeights()
    """The weights of the terms of the reward."""
    group_weight: GroupWeight = GroupWeight.CONSISTENCY
    """What a group's advantages are multiplied by. `Consistency` gives more weight to groups that
    agree. `Deviation` is the standard deviation of the group's rewards: it reverses GRPO's division
    by it, which gives the largest advantages to groups that half agree (Dr. GRPO). `None` gives all
    groups the same weight, which is an ablation."""
    judge: JudgeSpec = JudgeSpec()
    """The judge: the frozen model that scores candidates."""
    min_words: Annotated[int, Field(ge=0, le=1000)] = 2
    """The minimum number of words of a response without a penalty. 2 penalizes single words. In
    scripts without spaces, a character counts as a word."""
    max_words: Annotated[int, Field(ge=1, le=4000)] = 40
    """The maximum number of words of a response without a penalty. The 99th percentile in MELD is
    31 words."""
    penalty: Share = 0.5
    """The amount that each fault of a response subtracts from its reward. The faults are: naming
    the intended emotion, repeating the context, and being too short or too long."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minWords < self.maxWords",
            "`minWords` must be less than `maxWords`",
            resolved=True,
        ),
    )
