"""Counts what the stages have come to over the whole run: for metrics, nothing decides by it."""

from __future__ import annotations

from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.status import EvolutionStatus, Reason, StageFailure, StageTotals
from selfemo_operator.planner.gpus import gpus_of

#: Ends of an evolution that are the failure of an attempt which nothing else has counted.
_ENDS = {
    Reason.BAD_INPUT: StageFailure.BAD_INPUT,
    Reason.DEADLINE_EXCEEDED: StageFailure.DEADLINE_EXCEEDED,
    Reason.PENDING_TOO_LONG: StageFailure.PENDING_TOO_LONG,
}


def with_result_counted(
    status: EvolutionStatus, spec: EvolutionSpec, result: StageResult
) -> EvolutionStatus:
    """Return the status with a stage's result counted."""
    before = _totals(status, result.stage)
    after = before.model_copy(
        update={
            "generation": result.generation,
            "seconds": result.seconds,
            "metrics": result.metrics,
            "runs": before.runs + 1,
            "total_seconds": before.total_seconds + result.seconds,
            "gpu_seconds": before.gpu_seconds + result.seconds * gpus_of(spec, result.stage),
            "tokens": before.tokens + result.metrics.get("tokens", 0.0),
        }
    )
    return _replaced(status, after)


def with_failure_counted(status: EvolutionStatus, why: StageFailure) -> EvolutionStatus:
    """Return the status with a failed attempt of the stage under way counted."""
    if status.stage is None:
        return status
    before = _totals(status, status.stage)
    failures = {**before.failures, why.value: before.failures.get(why.value, 0) + 1}
    return _replaced(status, before.model_copy(update={"failures": failures}))


def with_end_counted(status: EvolutionStatus, reason: Reason) -> EvolutionStatus:
    """Return the status with the attempt counted whose failure ended the evolution, if one did."""
    why = _ENDS.get(reason)
    return with_failure_counted(status, why) if why else status


def _totals(status: EvolutionStatus, stage: Stage) -> StageTotals:
    found = (t for t in status.stages if t.stage is stage)
    return next(found, StageTotals(stage=stage))


def _replaced(status: EvolutionStatus, totals: StageTotals) -> EvolutionStatus:
    by_stage = {**{t.stage: t for t in status.stages}, totals.stage: totals}
    ordered = [by_stage[stage] for stage in STAGE_ORDER if stage in by_stage]
    return status.model_copy(update={"stages": ordered})
