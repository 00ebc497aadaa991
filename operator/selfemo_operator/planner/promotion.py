"""Closes a generation: it is promoted or rolled back, and recorded in the history. Pure."""

from __future__ import annotations

from selfemo_api.metrics import ScoreMetric
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, OnRegression
from selfemo_api.stages import Stage
from selfemo_api.status import (
    HISTORY_LIMIT,
    Best,
    EvolutionStatus,
    GenerationRecord,
    Outcome,
)
from selfemo_operator.planner.types import StatusChanges

#: The stages whose result is a model.
_TRAINING_STAGES = (Stage.WARM_START, Stage.TRAIN)


def is_improved(best: Best | None, result: StageResult, spec: EvolutionSpec) -> bool:
    """Return whether a generation is better than the best before it, so that it may be promoted.

    Parameters
    ----------
    best
        The best generation so far. Generation 0 has none before it, and improves nothing.
    result
        The result of a stage. Only an evaluation has a score.
    spec
        The spec pinned for the generation.
    """
    f1 = {score.source: score.weighted_f1 for score in result.scores}.get(spec.selection_dataset)
    return best is not None and f1 is not None and f1 > best.f1 + spec.promotion.min_delta


def close_generation(
    status: EvolutionStatus,
    spec: EvolutionSpec,
    result: StageResult,
    gpu_seconds: dict[Stage, float],
) -> EvolutionStatus:
    """Promote the generation or roll it back, and write it into the history.

    Parameters
    ----------
    status
        The status, with all results of the generation.
    spec
        The spec pinned for the generation.
    result
        The result of its evaluation.
    gpu_seconds
        GPU seconds of each stage of the generation.
    """
    score = next(s for s in result.scores if s.source == spec.selection_dataset)
    f1 = score.weighted_f1
    best = status.best
    if best is None:
        outcome, message = Outcome.BASELINE, "the baseline model"
    elif is_improved(best, result, spec):
        outcome = Outcome.PROMOTED
        message = f"F1 {f1:.4f} is above generation {best.generation}'s {best.f1:.4f}"
    else:
        rolled_back = spec.promotion.on_regression is not OnRegression.CONTINUE
        outcome = Outcome.ROLLED_BACK if rolled_back else Outcome.CONTINUED
        message = f"F1 {f1:.4f} is not above generation {best.generation}'s {best.f1:.4f}"
    is_better = outcome in (Outcome.BASELINE, Outcome.PROMOTED)
    if is_better:
        best = Best(generation=status.generation, f1=f1, model_uri=model_of(status))
    record = _generation_record(status, outcome, message, f1, gpu_seconds)
    changes: StatusChanges = {
        "best": best,
        "f1": f1,
        "baseline": status.baseline or score,
        "baseline_uri": status.baseline_uri or model_of(status),
        "without_improvement": 0 if is_better else status.without_improvement + 1,
        "history": [*status.history, record][-HISTORY_LIMIT:],
    }
    return status.model_copy(update=changes)


def close_collapsed(
    status: EvolutionStatus,
    spec: EvolutionSpec,
    result: StageResult,
    message: str,
    gpu_seconds: dict[Stage, float],
) -> EvolutionStatus:
    """Write a collapsed generation into the history; the best generation stays what it was."""
    scores = {s.source: s.weighted_f1 for s in result.scores}
    f1 = scores.get(spec.selection_dataset)
    record = _generation_record(status, Outcome.COLLAPSED, message, f1, gpu_seconds)
    changes: StatusChanges = {"history": [*status.history, record][-HISTORY_LIMIT:]}
    if f1 is not None:
        changes["f1"] = f1
    return status.model_copy(update=changes)


def with_open_generation(status: EvolutionStatus) -> EvolutionStatus:
    """Return the status as it was before the outcome of the generation in progress was recorded.

    A recovery from Publish makes results of the generation again, and decides it again.

    Parameters
    ----------
    status
        The status. It is returned as it is if the outcome is not recorded.
    """
    last = status.history[-1] if status.history else None
    if last is None or last.generation != status.generation or status.current is None:
        return status
    best = status.current.previous_best
    without_improvement = status.without_improvement
    if last.outcome in (Outcome.ROLLED_BACK, Outcome.CONTINUED):
        without_improvement -= 1
    elif last.outcome is Outcome.PROMOTED and best is not None:
        without_improvement = _without_improvement(status, best)
    changes: StatusChanges = {
        "history": status.history[:-1],
        "best": best,
        "without_improvement": without_improvement,
    }
    if best is None:
        changes |= {"baseline": None, "baseline_uri": None}
    return status.model_copy(update=changes)


def _without_improvement(status: EvolutionStatus, best: Best) -> int:
    """Return the number of generations between the best one and the one in progress.

    Those that collapsed do not count, see :func:`close_collapsed`.
    """
    collapsed = {r.generation for r in status.history if r.outcome is Outcome.COLLAPSED}
    between = range(best.generation + 1, status.generation)
    return len(set(between) - collapsed)


def _generation_record(
    status: EvolutionStatus,
    outcome: Outcome,
    message: str,
    f1: float | None,
    gpu_seconds: dict[Stage, float],
) -> GenerationRecord:
    results = {r.stage: r for r in status.current.results} if status.current else {}
    scored, kept = results.get(Stage.SCORE), results.get(Stage.FLYWHEEL)
    evaluated = results.get(Stage.EVALUATE)
    return GenerationRecord(
        generation=status.generation,
        outcome=outcome,
        message=message,
        f1=f1,
        scores=evaluated.scores if evaluated else [],
        expression=evaluated.expression if evaluated else None,
        reward=scored.metrics.get(ScoreMetric.REWARD_MEAN) if scored else None,
        consistency=scored.metrics.get(ScoreMetric.CONSISTENCY_MEAN) if scored else None,
        kept=kept.rows if kept else None,
        model_uri=model_of(status),
        stage_seconds={stage.value: r.seconds for stage, r in results.items()},
        gpu_seconds=sum(gpu_seconds.values()),
    )


def next_policy(spec: EvolutionSpec, status: EvolutionStatus) -> str:
    """Return the URI of the model from which the generation after a closed one starts.

    It is the best model, unless the closed generation was continued and the spec still says so. A
    generation that was rolled back stays so: an edit to `onRegression: Continue` after its end does
    not bring back its model, which Publish may have removed (`storage.keep`).

    Parameters
    ----------
    spec
        The spec of the next generation.
    status
        The status, with a generation that is closed.

    Raises
    ------
    ValueError
        If no generation is closed.
    """
    if status.best is None:
        raise ValueError("a closed generation has a best one")
    was_continued = bool(status.history) and status.history[-1].outcome is Outcome.CONTINUED
    continues = was_continued and spec.promotion.on_regression is OnRegression.CONTINUE
    return model_of(status) if continues else status.best.model_uri


def model_of(status: EvolutionStatus) -> str:
    """Return the URI of the model that the current generation is about."""
    if status.current is None:
        return ""
    trained = next((r for r in status.current.results if r.stage in _TRAINING_STAGES), None)
    return (trained and trained.model_uri) or status.current.policy_uri
