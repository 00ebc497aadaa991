"""Names of metrics and of progress lines: contracts between stages, planner, report and operator.

A stage writes its metrics into its manifest and its termination message. The planner, the report,
the Prometheus series and ``selfemo watch`` read them by the names below. The values are part of
stored results: a changed value makes old manifests unreadable for these consumers.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from selfemo_api.stages import Stage

#: The metric of SelfPlay and of Train that the planner adds up over a run.
TOKENS = "tokens"

#: Prefixes of metrics that form a family.
REWARD_AT_MOST = "rewardAtMost:"
"""Score. The rest of the name is a reward; the value counts the candidates with at most that."""
DROPPED = "dropped:"
"""Flywheel. The rest of the name is a filter; the value counts the candidates that it removed."""


class CheckMetric(StrEnum):
    """Metrics of Check: what it found in an input without a problem."""

    DIALOGUES = "dialogues"
    """Number of dialogues of all sources."""
    UTTERANCES = "utterances"
    """Number of their utterances."""
    LABELED_UTTERANCES = "labeledUtterances"
    """Number of utterances of the sources with `use: Labeled` that have a label."""
    PARAMETERS = "parameters"
    """Number of parameters of the model; absent if it is not known before a download."""
    PROBLEMS = "problems"
    """Number of problems. It is 0: with a problem, the stage fails."""
    WARNINGS = "warnings"
    """Number of warnings, which the manifest lists."""


class WarmStartMetric(StrEnum):
    """Metrics of WarmStart. F1 is weighted F1 on the selection dataset, from 0 to 1."""

    STEPS = "steps"
    """Number of optimizer steps, until F1 stopped rising."""
    BEST_STEP = "bestStep"
    """Number of optimizer steps after which the weights were best. If 0, training did not help."""
    UTTERANCES = "utterances"
    """Number of labeled utterances that were trained on."""
    EXAMPLES = "examples"
    """Number of distinct examples of both roles made from them."""
    LOSS = "loss"
    """Mean loss since the second-to-last evaluation, in nats; absent without a step."""
    WEIGHTED_F1_BEFORE = "weightedF1Before"
    """F1 of the model before the warm start."""
    WEIGHTED_F1 = "weightedF1"
    """F1 of the best weights, which the stage keeps."""


class SelfPlayMetric(StrEnum):
    """Metrics of SelfPlay. Fractions are from 0 to 1."""

    CANDIDATES = "candidates"
    """Number of completions of both roles."""
    GROUPS = "groups"
    """Number of groups: completions of the same prompt."""
    TOKENS = TOKENS
    """Number of generated tokens."""
    PROMPT_TOKENS = "promptTokens"
    """Number of prompt tokens, counted once for each completion."""
    WELL_FORMED = "wellFormed"
    """Fraction of completions in the format that the prompt requires."""
    RECOGNIZER_WELL_FORMED = "recognizerWellFormed"
    """The same fraction for the recognizer's completions; absent if there are none."""
    RESPONDER_WELL_FORMED = "responderWellFormed"
    """The same fraction for the responder's completions; absent if there are none."""
    FINISHED = "finished"
    """Fraction of completions that ended before the token limit."""
    MEAN_LOGPROB = "meanLogprob"
    """Mean log-probability of a generated token, in nats."""
    LABEL_ENTROPY = "labelEntropy"
    """Normalized entropy of the recognizer's labels; absent if there are none."""
    DIVERSITY = "diversity"
    """Fraction of distinct bigrams in about 512 responses; absent if there are none."""


class ScoreMetric(StrEnum):
    """Metrics of Score, except the family :data:`REWARD_AT_MOST`. An empty mean is absent."""

    REWARD_MEAN = "rewardMean"
    """Mean reward of the scored candidates."""
    REWARD_STD = "rewardStd"
    """Standard deviation of these rewards."""
    REWARD_MEAN_RECOGNIZER = "rewardMeanRecognizer"
    """Mean reward of the recognizer's candidates."""
    REWARD_MEAN_RESPONDER = "rewardMeanResponder"
    """Mean reward of the responder's candidates."""
    ALIGNMENT_MEAN = "alignmentMean"
    """Mean alignment of the scored candidates."""
    ALIGNMENT_MEAN_RECOGNIZER = "alignmentMeanRecognizer"
    """Mean alignment of the recognizer's candidates."""
    ALIGNMENT_MEAN_RESPONDER = "alignmentMeanResponder"
    """Mean alignment of the responder's candidates."""
    CONSISTENCY_MEAN = "consistencyMean"
    """Mean consistency of the scored groups."""
    PENALTY_MEAN = "penaltyMean"
    """Mean penalty of the responder's candidates."""
    FORMAT_MEAN = "formatMean"
    """Fraction of all candidates that are well formed."""
    ZERO_VARIANCE_SHARE = "zeroVarianceShare"
    """Fraction of groups whose rewards are all equal; 1 if there is no group."""
    ZERO_VARIANCE_SHARE_RECOGNIZER = "zeroVarianceShareRecognizer"
    """The same fraction for the recognizer's groups; absent if there are none."""
    ZERO_VARIANCE_SHARE_RESPONDER = "zeroVarianceShareResponder"
    """The same fraction for the responder's groups; absent if there are none."""
    GROUPS = "groups"
    """Number of groups with a consensus."""
    GROUPS_DROPPED = "groupsDropped"
    """Number of groups without one."""
    CONSENSUS_ENTROPY = "consensusEntropy"
    """Normalized entropy of the labels in the consensuses."""
    CONSENSUS_ACCURACY = "consensusAccuracy"
    """Fraction of consensuses that equal the gold labels, where gold labels are read."""


class FlywheelMetric(StrEnum):
    """Metrics of Flywheel, except the family :data:`DROPPED`."""

    CANDIDATES = "candidates"
    """Number of candidates of this generation before the filters."""
    GROUPS = "groups"
    """Number of groups of this generation before the filters."""
    KEPT = "kept"
    """Number of candidates for training, including replayed ones."""
    KEPT_GROUPS = "keptGroups"
    """Number of groups for training, including replayed ones."""
    KEPT_RECOGNIZER = "keptRecognizer"
    """Number of these groups that are the recognizer's."""
    KEPT_RESPONDER = "keptResponder"
    """Number of these groups that are the responder's."""
    REPLAYED = "replayed"
    """Number of groups of earlier generations."""
    REPLAYED_CANDIDATES = "replayedCandidates"
    """Number of candidates of earlier generations."""
    LABEL_ENTROPY = "labelEntropy"
    """Normalized entropy of the kept groups' labels."""
    KEPT_SHARE = "keptShare"
    """Fraction of this generation's groups that passed the filters."""


class TrainMetric(StrEnum):
    """Metrics of Train. Means are over the optimizer steps. If no group was kept, only STEPS."""

    STEPS = "steps"
    """Number of optimizer steps."""
    ROWS = "rows"
    """Number of distinct completions that were trained on."""
    TOKENS = TOKENS
    """Number of completion tokens of all steps."""
    LOSS = "loss"
    """Loss of the last step."""
    LOSS_MEAN = "lossMean"
    """Mean loss."""
    GRAD_NORM = "gradNorm"
    """Mean norm of the gradient before clipping."""
    ENTROPY = "entropy"
    """Mean entropy of the policy's next token, in nats."""
    CLIP_LOW = "clipLow"
    """Mean fraction of tokens whose probability ratio was clipped at the lower bound."""
    CLIP_HIGH = "clipHigh"
    """Mean fraction of tokens whose probability ratio was clipped at the upper bound."""
    KL = "kl"
    """Mean KL divergence from the reference, in nats; 0 if `training.klBeta` is 0."""
    IMITATION = "imitation"
    """Mean cross-entropy of the imitated answers, in nats; absent if there are none."""
    IMPORTANCE_MEAN = "importanceMean"
    """Mean importance weight of the trained tokens."""


class EvaluateMetric(StrEnum):
    """Metrics of Evaluate: those of :class:`selfemo_api.results.SourceScore`, selection dataset."""

    WEIGHTED_F1 = "weightedF1"
    STRICT_WEIGHTED_F1 = "strictWeightedF1"
    MACRO_F1 = "macroF1"
    ACCURACY = "accuracy"
    UNPARSABLE = "unparsable"
    MALFORMED = "malformed"
    """Fraction of answers that are not in the format that the prompt requires."""
    LABEL_ENTROPY = "labelEntropy"


class PublishMetric(StrEnum):
    """Metrics of Publish."""

    REPORT_FAILURES = "reportFailures"
    """1 if the report could not be written; the manifest contains the reason. Otherwise 0."""
    COPIED_FILES = "copiedFiles"
    """Number of files of the best model at `publish`; absent without it. If 0, the best model is a
    base model, which is not copied."""
    REMOVED_MODELS = "removedModels"
    """Number of models of the run that `storage.keep` has removed so far; absent with `All`."""
    TRACKER_FAILURES = "trackerFailures"
    """Number of trackers that did not accept the metrics; absent without trackers."""


#: Any of them.
StageMetric = (
    CheckMetric
    | WarmStartMetric
    | SelfPlayMetric
    | ScoreMetric
    | FlywheelMetric
    | TrainMetric
    | EvaluateMetric
    | PublishMetric
)

#: The metrics of each stage.
STAGE_METRICS: Mapping[Stage, type[StageMetric]] = MappingProxyType(
    {
        Stage.CHECK: CheckMetric,
        Stage.WARM_START: WarmStartMetric,
        Stage.SELF_PLAY: SelfPlayMetric,
        Stage.SCORE: ScoreMetric,
        Stage.FLYWHEEL: FlywheelMetric,
        Stage.TRAIN: TrainMetric,
        Stage.EVALUATE: EvaluateMetric,
        Stage.PUBLISH: PublishMetric,
    }
)

#: Message of a progress line: a JSON line of a stage's log with some of :class:`ProgressField`.
PROGRESS_MESSAGE = "progress"


class ProgressField(StrEnum):
    """Fields of a progress line."""

    DONE = "done"
    """Units of work that are done: questions, episodes, parts or optimizer steps."""
    TOTAL = "total"
    """Total units of work."""
    TOKENS_PER_SECOND = "tokensPerSecond"
    """SelfPlay: generated tokens per second of this attempt."""
    LOSS = "loss"
    """Train and warm start: loss of the last step."""
    GRAD_NORM = "gradNorm"
    """Train: norm of the last step's gradient before clipping."""
    LEARNING_RATE = "learningRate"
    """Train and warm start: learning rate of the last step."""
    KL = "kl"
    """Train: KL divergence from the reference at the last step, in nats; absent with `klBeta` 0."""
    ENTROPY = "entropy"
    """Train: mean entropy of the policy's next token at the last step, in nats."""
    CLIP_LOW = "clipLow"
    """Train: fraction of the last step's tokens with a probability ratio below the lower bound."""
    CLIP_HIGH = "clipHigh"
    """Train: fraction of the last step's tokens with a probability ratio above the upper bound."""
    WEIGHTED_F1 = "weightedF1"
    """Evaluate: weighted F1 of the source that was completed last. WarmStart: of the selection
    dataset at the last evaluation."""


#: The prefix of the Prometheus series of a running stage.
LIVE_PREFIX = "selfemo_stage_"
#: The labels of these series. A scrape adds those of the pod, such as `namespace`.
LIVE_LABELS = ("name", "stage")
#: The gauges of a running stage without the prefix, with their help texts, by the field of a
#: progress line. The last two are derived when a line is written.
LIVE_GAUGES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        ProgressField.DONE: ("done", "Units of work that are done"),
        ProgressField.TOTAL: ("total", "Total units of work"),
        ProgressField.TOKENS_PER_SECOND: (
            "tokens_per_second",
            "Tokens per second that this self-play attempt generates",
        ),
        ProgressField.LOSS: ("loss", "Loss of the last step of a training or warm start"),
        ProgressField.GRAD_NORM: (
            "grad_norm",
            "Norm of the gradient of the last training step, before clipping",
        ),
        ProgressField.LEARNING_RATE: (
            "learning_rate",
            "Learning rate of the last step of a training or warm start",
        ),
        ProgressField.KL: (
            "kl",
            "KL divergence from the reference at the last training step, in nats",
        ),
        ProgressField.ENTROPY: (
            "entropy",
            "Mean entropy of the policy's next token at the last training step, in nats",
        ),
        ProgressField.CLIP_LOW: (
            "clip_low",
            "Fraction of the last training step's tokens that were clipped at the lower bound",
        ),
        ProgressField.CLIP_HIGH: (
            "clip_high",
            "Fraction of the last training step's tokens that were clipped at the upper bound",
        ),
        ProgressField.WEIGHTED_F1: (
            "weighted_f1",
            "Weighted F1 on the last evaluated dataset, or at the last warm start evaluation",
        ),
        "remainingSeconds": (
            "remaining_seconds",
            "Estimated time until the work is done, at the mean rate of this attempt, as of the "
            "last change in progress",
        ),
        "progressTimestampSeconds": (
            "progress_timestamp_seconds",
            "Time at which the progress last changed",
        ),
    }
)
