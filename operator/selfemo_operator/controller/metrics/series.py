"""The series of an evolution: names, help texts, labels, and how each is read from the resource.

There are few labels: namespace, name, stage, dataset, emotion, and the values of a state set, a
reason or a filter. The generation is a value, never a label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from selfemo_api.metrics import (
    DROPPED,
    FlywheelMetric,
    ScoreMetric,
    SelfPlayMetric,
    TrainMetric,
)
from selfemo_api.stages import Stage
from selfemo_operator.controller.metrics.series_readers import (
    Values,
    attempts,
    completion_tokens,
    conditions,
    durations,
    evaluated_generation,
    expression,
    expression_by_emotion,
    f1_by_emotion,
    failures,
    gpu_seconds,
    info,
    label_divergence,
    limit,
    phases,
    reward_buckets,
    reward_count,
    reward_sum,
    score,
    stage_metric,
    stage_metrics,
    stages,
    status_number,
    time_of,
    total_tokens,
    train_metric,
)
from selfemo_operator.controller.metrics.snapshot import Snapshot

PREFIX = "selfemo_evolution_"
#: The labels of every series, before its own.
OBJECT_LABELS = ("namespace", "name")


@dataclass(frozen=True)
class Series:
    """The series of one name: their help text, labels and reader."""

    name: str
    """The name without the prefix."""
    help: str
    read: Callable[[Snapshot], Values]
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter", "histogram"] = "gauge"

    @property
    def family(self) -> str:
        """The name of the metric family, as in its HELP and TYPE lines."""
        if self.kind != "histogram":
            return self.name
        return self.name.rsplit("_", 1)[0]


_DATASET, _STAGE = ("dataset",), ("stage",)
_SCORED = "last scored generation"
_EVALUATED = "in the last evaluated generation"
_TRAINED = "over the steps of the last training"
#: Expression: the name, the help text, and the path below the record's `expression`.
_EXPRESSION: tuple[tuple[str, ...], ...] = (
    (
        "ratio",
        f"Fraction of responses that the baseline classifies as intended, {_EVALUATED}",
        "asIntended",
    ),
    ("low_ratio", "Lower end of the 95% confidence interval of that fraction", "asIntendedLow"),
    ("high_ratio", "Upper end of the 95% confidence interval of that fraction", "asIntendedHigh"),
    ("human_ratio", "Accuracy of the baseline on human turns", "human"),
    (
        "gain_ratio",
        f"Fraction of responses classified as intended minus generation 0's, {_EVALUATED}",
        *("overBaseline", "change"),
    ),
    (
        "gain_low_ratio",
        "Lower end of the paired 95% confidence interval of that gain",
        *("overBaseline", "low"),
    ),
    (
        "gain_high_ratio",
        "Upper end of the paired 95% confidence interval of that gain",
        *("overBaseline", "high"),
    ),
    (
        "gain_over_best_ratio",
        "Fraction of responses classified as intended minus the previous best generation's",
        *("overBest", "change"),
    ),
    (
        "consistency_ratio",
        f"Mean fraction of predictions that agree on the emotion of a response, {_EVALUATED}",
        "consistency",
    ),
    (
        "diversity_ratio",
        f"Fraction of distinct bigrams in the responses, {_EVALUATED}",
        "diversity",
    ),
    ("words_mean", f"Mean number of words per response, {_EVALUATED}", "words"),
    ("named_ratio", f"Fraction of responses that name the intended emotion, {_EVALUATED}", "named"),
)
#: All series of an evolution, the most important first: if there are too many, the last ones are
#: left out. docs/reference/metrics.md is generated from them.
EVOLUTION: tuple[Series, ...] = (
    Series(
        "info",
        "Always 1; the model, the selection dataset as `dataset`, and the run's folder as `uri`",
        info,
        ("model", "dataset", "uid", "uri"),
    ),
    Series("phase", "1 for the current phase, 0 for the others", phases, ("phase",)),
    Series(
        "condition",
        "1 if the condition is True, otherwise 0; `reason` is its reason",
        conditions,
        ("condition", "reason"),
    ),
    Series("stage", "1 for the current stage, 0 for the others", stages, _STAGE),
    Series("generation", "Current generation", status_number("generation")),
    Series(
        "max_generations",
        "Maximum generation that the spec allows",
        limit("stopping", "maxGenerations"),
    ),
    Series("attempt", "Current attempt of the current stage", status_number("attempt")),
    Series(
        "failed_attempts",
        "Failed attempts of the current stage, excluding disruptions",
        status_number("failures"),
    ),
    Series(
        "replaced_pods",
        "Pods of the current stage that the platform removed and the Job recreated",
        status_number("replacedPods"),
    ),
    Series(
        "evaluated_generation",
        "Last evaluated generation. Stage values refer to it until the next generation is scored",
        evaluated_generation,
    ),
    Series("best_generation", "Best generation so far", status_number("best", "generation")),
    Series("best_f1_ratio", "Weighted F1 of the best generation", status_number("best", "f1")),
    Series(
        "f1_ratio",
        "Weighted F1 of the last evaluated generation on the selection dataset",
        status_number("f1"),
    ),
    Series(
        "baseline_f1_ratio",
        "Weighted F1 of the baseline (generation 0) on the selection dataset",
        status_number("baseline", "weightedF1"),
    ),
    Series("goal_f1_ratio", "Weighted F1 at which the evolution stops", limit("stopping", "goal")),
    Series(
        "generations_without_improvement",
        "Generations since the best one",
        status_number("withoutImprovement"),
    ),
    Series("start_timestamp_seconds", "Time at which the evolution started", time_of("startTime")),
    Series(
        "completion_timestamp_seconds",
        "Time at which the evolution ended",
        time_of("completionTime"),
    ),
    Series(
        "progress_timestamp_seconds",
        "Time at which the stage last changed, or an attempt started",
        time_of("lastProgressTime"),
    ),
    Series(
        "stage_duration_seconds",
        "Wall time of a stage when it last succeeded",
        durations,
        _STAGE,
    ),
    Series(
        "stage_attempts_total",
        "Attempts of a stage that have ended",
        attempts,
        _STAGE,
        "counter",
    ),
    Series(
        "stage_failures_total",
        "Attempts of a stage that have failed, by reason",
        failures,
        ("stage", "reason"),
        "counter",
    ),
    Series(
        "gpu_seconds_total",
        "GPU-seconds of successful attempts",
        gpu_seconds,
        _STAGE,
        "counter",
    ),
    Series(
        "generated_tokens_total",
        "Tokens that self-play generated",
        total_tokens(Stage.SELF_PLAY),
        kind="counter",
    ),
    Series(
        "trained_tokens_total",
        "Completion tokens that training read",
        total_tokens(Stage.TRAIN),
        kind="counter",
    ),
    Series(
        "reward_mean",
        f"Mean reward of the {_SCORED}",
        stage_metric(Stage.SCORE, ScoreMetric.REWARD_MEAN),
    ),
    Series(
        "reward_bucket",
        f"Rewards of the {_SCORED}; not cumulative over time, so do not use rate()",
        reward_buckets,
        ("le",),
        "histogram",
    ),
    Series("reward_sum", f"Sum of the rewards of the {_SCORED}", reward_sum, kind="histogram"),
    Series(
        "reward_count", f"Number of the rewards of the {_SCORED}", reward_count, kind="histogram"
    ),
    Series(
        "consistency_ratio",
        f"Mean consistency of the groups of the {_SCORED}",
        stage_metric(Stage.SCORE, ScoreMetric.CONSISTENCY_MEAN),
    ),
    Series(
        "zero_variance_ratio",
        f"Fraction of groups whose rewards are all equal, in the {_SCORED}",
        stage_metric(Stage.SCORE, ScoreMetric.ZERO_VARIANCE_SHARE),
    ),
    Series(
        "response_diversity_ratio",
        "Fraction of distinct bigrams in the responses of the last self-play",
        stage_metric(Stage.SELF_PLAY, SelfPlayMetric.DIVERSITY),
    ),
    Series(
        "completion_tokens_mean",
        "Mean number of tokens in a completion of the last self-play",
        completion_tokens,
    ),
    Series(
        "finished_completions_ratio",
        "Fraction of completions of the last self-play that ended before the token limit",
        stage_metric(Stage.SELF_PLAY, SelfPlayMetric.FINISHED),
    ),
    Series(
        "played_candidates",
        "Candidates of the last self-play",
        stage_metric(Stage.SELF_PLAY, SelfPlayMetric.CANDIDATES),
    ),
    Series(
        "scored_candidates",
        "Candidates that the last flywheel read",
        stage_metric(Stage.FLYWHEEL, FlywheelMetric.CANDIDATES),
    ),
    Series(
        "dropped_candidates",
        "Candidates that the last flywheel dropped, by filter",
        stage_metrics(Stage.FLYWHEEL, DROPPED),
        ("filter",),
    ),
    Series(
        "replayed_candidates",
        "Candidates of earlier generations that the last flywheel added",
        stage_metric(Stage.FLYWHEEL, FlywheelMetric.REPLAYED_CANDIDATES),
    ),
    Series(
        "kept_candidates",
        "Candidates that the last flywheel kept for training, including replayed ones",
        stage_metric(Stage.FLYWHEEL, FlywheelMetric.KEPT),
    ),
    Series("train_loss", "Last loss of the last training", train_metric(TrainMetric.LOSS)),
    Series("train_loss_mean", f"Mean loss {_TRAINED}", train_metric(TrainMetric.LOSS_MEAN)),
    Series(
        "train_kl",
        f"Mean KL divergence from the reference, in nats, {_TRAINED}",
        train_metric(TrainMetric.KL),
    ),
    Series(
        "train_clip_low_ratio",
        f"Mean fraction of tokens that were clipped at the lower bound, {_TRAINED}",
        train_metric(TrainMetric.CLIP_LOW),
    ),
    Series(
        "train_clip_high_ratio",
        f"Mean fraction of tokens that were clipped at the upper bound, {_TRAINED}",
        train_metric(TrainMetric.CLIP_HIGH),
    ),
    Series(
        "train_grad_norm",
        f"Mean norm of the gradient before clipping, {_TRAINED}",
        train_metric(TrainMetric.GRAD_NORM),
    ),
    Series(
        "train_entropy",
        f"Mean entropy of the policy's next token, in nats, {_TRAINED}",
        train_metric(TrainMetric.ENTROPY),
    ),
    Series(
        "train_importance_mean",
        "Mean importance weight of the tokens of the last training",
        train_metric(TrainMetric.IMPORTANCE_MEAN),
    ),
    Series(
        "train_imitation",
        f"Mean cross-entropy of the imitated answers, in nats, {_TRAINED}",
        train_metric(TrainMetric.IMITATION),
    ),
    Series(
        "label_divergence_ratio",
        "Jensen-Shannon divergence of the predicted labels from the baseline's",
        label_divergence,
        _DATASET,
    ),
    Series(
        "weighted_f1_ratio",
        "Weighted F1 of the last evaluated generation",
        score("weightedF1"),
        _DATASET,
    ),
    Series(
        "label_entropy_ratio",
        "Entropy of the predicted labels, divided by its maximum",
        score("labelEntropy"),
        _DATASET,
    ),
    Series(
        "weighted_f1_low_ratio",
        "Lower end of the 95% confidence interval of the weighted F1",
        score("weightedF1Low"),
        _DATASET,
    ),
    Series(
        "weighted_f1_high_ratio",
        "Upper end of the 95% confidence interval of the weighted F1",
        score("weightedF1High"),
        _DATASET,
    ),
    Series(
        "macro_f1_ratio", "Macro F1 of the last evaluated generation", score("macroF1"), _DATASET
    ),
    Series(
        "micro_f1_ratio",
        "Micro F1 of the last evaluated generation, for datasets that are scored by label sets",
        score("microF1"),
        _DATASET,
    ),
    Series(
        "samples_f1_ratio",
        "Mean F1 of the utterances' label sets in the last evaluated generation",
        score("samplesF1"),
        _DATASET,
    ),
    Series(
        "jaccard_ratio",
        "Mean intersection over union of the utterances' label sets in the last evaluated "
        "generation",
        score("jaccard"),
        _DATASET,
    ),
    Series(
        "labels_per_answer",
        "Mean number of labels per answer in the last evaluated generation, for datasets that are "
        "scored by label sets",
        score("labelsPerAnswer"),
        _DATASET,
    ),
    Series(
        "unparsable_ratio",
        "Fraction of answers that contain no label",
        score("unparsable"),
        _DATASET,
    ),
    *(Series(f"expression_{name}", text, expression(*path)) for name, text, *path in _EXPRESSION),
    Series(
        "emotion_f1_ratio",
        "F1 of one emotion in the last evaluated generation",
        f1_by_emotion,
        ("dataset", "emotion"),
    ),
    Series(
        "expression_emotion_ratio",
        f"Fraction of the responses of one emotion classified as intended, {_EVALUATED}",
        expression_by_emotion,
        ("emotion",),
    ),
)
