"""An evolution during a run, with all metrics that stages report, for tests of the metrics."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.planner.simulated_world import (
    SOURCES,
    START,
    result_of,
    score_of,
    spec_of,
)

from selfemo_api.evolution import EmotionEvolution, Metadata
from selfemo_api.recipes import with_overrides
from selfemo_api.results import ExpressionChange, ExpressionScore, StageResult
from selfemo_api.stages import STAGE_ORDER, Stage, stages_of
from selfemo_api.status import ConditionType, EvolutionStatus, StageFailure
from selfemo_operator.planner.accounting import with_attempts_counted
from selfemo_operator.planner.conditions import with_conditions
from selfemo_operator.planner.lifecycle import begin, record_result
from selfemo_operator.planner.types import AttemptOutcome

Json = dict[str, Any]
SEVEN = ["neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust"]
FILTERS = (
    "zeroVariance",
    "consistency",
    "minReward",
    "exactDuplicates",
    "nearDuplicates",
    "keep",
    "balance",
)
REWARDS = ("-0.5", "0", "0.2", "0.4", "0.6", "0.8", "0.9", "1")

METRICS: dict[Stage, dict[str, float]] = {
    Stage.CHECK: {"dialogues": 1153, "utterances": 11_098, "problems": 0, "warnings": 2},
    Stage.WARM_START: {"steps": 240, "loss": 0.6, "weightedF1": 0.3, "weightedF1Before": 0.1},
    Stage.SELF_PLAY: {
        "candidates": 8000,
        "groups": 1000,
        "tokens": 250_000,
        "promptTokens": 4_000_000,
        "wellFormed": 0.98,
        "finished": 0.97,
        "diversity": 0.42,
    },
    Stage.SCORE: {
        "rewardMean": 0.55,
        "rewardStd": 0.2,
        "consistencyMean": 0.61,
        "zeroVarianceShare": 0.11,
        **{f"rewardAtMost:{edge}": 900.0 * n for n, edge in enumerate(REWARDS, 1)},
    },
    Stage.FLYWHEEL: {
        "candidates": 7200,
        "kept": 3100,
        "replayedCandidates": 400,
        **{f"dropped:{name}": 750 for name in FILTERS},
    },
    Stage.TRAIN: {
        "tokens": 90_000,
        "loss": 0.031,
        "lossMean": 0.04,
        "gradNorm": 0.8,
        "entropy": 1.4,
        "clipLow": 0.01,
        "clipHigh": 0.02,
        "kl": 0.002,
        "imitation": 0.9,
        "importanceMean": 0.99,
    },
}


def expression_of(generation: int) -> ExpressionScore:
    """Return the expression of a generation, a little better than that of the one before."""
    share = round(0.3 + 0.05 * generation, 6)
    change = round(0.05 * generation, 6)
    over_baseline = ExpressionChange(
        generation=0, change=change, low=round(change - 0.04, 6), high=round(change + 0.04, 6)
    )
    over_best = ExpressionChange(generation=1, change=0.05, low=0.01, high=0.09)
    return ExpressionScore(
        source="dev",
        responses=252,
        dialogues=36,
        as_intended=share,
        as_intended_low=round(share - 0.05, 6),
        as_intended_high=round(share + 0.05, 6),
        consistency=0.62,
        diversity=0.71,
        words=9.5,
        named=0.04,
        well_formed=0.98,
        human=0.55,
        human_turns=240,
        as_intended_by_label=[share] * len(SEVEN),
        over_baseline=over_baseline if generation else None,
        over_best=over_best if generation > 1 else None,
    )


def result(generation: int, stage: Stage, f1: float, sources: list[str]) -> StageResult:
    scores = [
        score_of(f1, source=s, weighted_f1_low=f1 - 0.02, weighted_f1_high=f1 + 0.02)
        for s in sources
    ]
    more: Json = {"metrics": METRICS.get(stage, {}), "scores": []}
    if stage is Stage.EVALUATE:
        more["scores"] = scores
        more["expression"] = expression_of(generation)
    return result_of(generation, stage, **more)


def evolution_after(
    name: str = "demo",
    *,
    sources: tuple[str, ...] = ("dev",),
    until: tuple[int, Stage] = (2, Stage.FLYWHEEL),
    version: int = 7,
    **spec: Any,
) -> Json:
    """Return an evolution as JSON, after a given stage.

    Parameters
    ----------
    name
        The name of the evolution.
    sources
        The names of the evaluation datasets.
    until
        The generation and the stage that ended last.
    version
        The resource version.
    spec
        Changes of the spec.
    """
    file = {"uri": "data://demo/dev.jsonl", "use": "Evaluation", "format": "JSONL"}
    evaluation = [{"name": source, **file} for source in sources]
    evolution = EmotionEvolution(
        metadata=Metadata(
            name=name, namespace="team", uid="0123456789ab", resource_version=str(version)
        ),
        spec=spec_of(
            dataset={"labels": SEVEN, "sources": [*SOURCES[:2], *evaluation]},
            warmStart={"steps": 100},
            **spec,
        ),
    )
    status = begin(evolution, START)
    for stage in stages_of(0, warm_start=True):
        status = _recorded(evolution, status, result(0, stage, 0.3, list(sources)))
    for generation in range(1, until[0] + 1):
        for stage in stages_of(generation):
            if (generation, STAGE_ORDER.index(stage)) > (until[0], STAGE_ORDER.index(until[1])):
                break
            f1 = 0.3 + 0.1 * generation
            failed = AttemptOutcome(stage, failure=StageFailure.FAILED)
            status = with_attempts_counted(status, failed, None)
            status = _recorded(evolution, status, result(generation, stage, f1, list(sources)))
    status = with_conditions(
        status.model_copy(update={"last_progress_time": START}),
        now=START,
        observed_generation=1,
        suspended=False,
        job=None,
        end=None,
    )
    assert status.condition(ConditionType.PROGRESSING)
    item = evolution.model_copy(update={"status": status}).to_json()
    del item["written"]
    item["spec"] = with_overrides(item["spec"])
    item["metadata"]["resourceVersion"] = str(version)
    return item


def _recorded(
    evolution: EmotionEvolution, status: EvolutionStatus, stage_result: StageResult
) -> EvolutionStatus:
    """Return the status after a result, as the planner writes it."""
    progress = record_result(evolution, status, evolution.spec, stage_result)
    return with_attempts_counted(progress.status, progress.outcome, progress.end)
