"""The metrics of each stage that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfemo_api.metrics import (
    FlywheelMetric,
    ScoreMetric,
    SelfPlayMetric,
    StageMetric,
    TrainMetric,
    WarmStartMetric,
)
from selfemo_api.stages import Stage

#: The metrics of each stage: the key in the manifest's metrics, and the name on the page.
SHOWN_METRICS: Mapping[Stage, Sequence[tuple[StageMetric, str]]] = {
    Stage.WARM_START: (
        (WarmStartMetric.UTTERANCES, "labeled utterances"),
        (WarmStartMetric.STEPS, "steps"),
        (WarmStartMetric.BEST_STEP, "steps of the best weights"),
        (WarmStartMetric.LOSS, "loss"),
        (WarmStartMetric.WEIGHTED_F1_BEFORE, "F1 before"),
        (WarmStartMetric.WEIGHTED_F1, "F1 after"),
    ),
    Stage.SELF_PLAY: (
        (SelfPlayMetric.CANDIDATES, "candidates"),
        (SelfPlayMetric.GROUPS, "groups"),
        (SelfPlayMetric.TOKENS, "tokens"),
        (SelfPlayMetric.DIVERSITY, "distinct bigrams"),
        (SelfPlayMetric.WELL_FORMED, "well formed"),
    ),
    Stage.SCORE: (
        (ScoreMetric.REWARD_MEAN, "reward"),
        (ScoreMetric.REWARD_STD, "reward, standard deviation"),
        (ScoreMetric.ALIGNMENT_MEAN, "alignment"),
        (ScoreMetric.CONSISTENCY_MEAN, "consistency"),
        (ScoreMetric.PENALTY_MEAN, "penalty"),
        (ScoreMetric.ZERO_VARIANCE_SHARE, "groups without variance"),
    ),
    Stage.FLYWHEEL: (
        (FlywheelMetric.KEPT_GROUPS, "groups kept"),
        (FlywheelMetric.KEPT, "rows kept"),
        (FlywheelMetric.REPLAYED, "groups replayed"),
        (FlywheelMetric.LABEL_ENTROPY, "entropy of kept labels"),
    ),
    Stage.TRAIN: (
        (TrainMetric.STEPS, "steps"),
        (TrainMetric.TOKENS, "tokens"),
        (TrainMetric.LOSS, "loss"),
        (TrainMetric.KL, "KL to the reference"),
        (TrainMetric.CLIP_LOW, "clipped low"),
        (TrainMetric.CLIP_HIGH, "clipped high"),
        (TrainMetric.GRAD_NORM, "gradient norm"),
    ),
}
