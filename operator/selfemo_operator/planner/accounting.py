"""Counts the attempts of each stage over the whole run, for metrics. No decision uses them."""

from __future__ import annotations

from selfemo_api.metrics import TOKENS
from selfemo_api.stages import STAGE_ORDER
from selfemo_api.status import EvolutionStatus, Reason, StageFailure, StageTotals
from selfemo_operator.planner.types import AttemptOutcome, End

#: Ends that are the failure of an attempt which is not counted otherwise.
_FAILURE_OF_END = {
    Reason.BAD_INPUT: StageFailure.BAD_INPUT,
    Reason.DEADLINE_EXCEEDED: StageFailure.DEADLINE_EXCEEDED,
    Reason.PENDING_TOO_LONG: StageFailure.PENDING_TOO_LONG,
}


def with_attempts_counted(
    status: EvolutionStatus, outcome: AttemptOutcome | None, end: End | None
) -> EvolutionStatus:
    """Return the status with the attempts counted that ended in this pass.

    Parameters
    ----------
    status
        The status after the attempt. Its stage may be a later one already.
    outcome
        The result, failure or replacement that was recorded in this pass, if there was one.
    end
        Why the evolution ends in this pass, or None. Some ends are a failure of the current stage.
    """
    if outcome is not None:
        status = _counted(status, outcome)
    failure = _FAILURE_OF_END.get(end.reason) if end else None
    if failure is not None and status.stage is not None:
        status = _counted(status, AttemptOutcome(status.stage, failure=failure))
    return status


def _counted(status: EvolutionStatus, outcome: AttemptOutcome) -> EvolutionStatus:
    by_stage = {totals.stage: totals for totals in status.stages}
    totals = by_stage.get(outcome.stage, StageTotals(stage=outcome.stage))
    by_stage[outcome.stage] = _with_outcome(totals, outcome)
    ordered = [by_stage[stage] for stage in STAGE_ORDER if stage in by_stage]
    return status.model_copy(update={"stages": ordered})


def _with_outcome(totals: StageTotals, outcome: AttemptOutcome) -> StageTotals:
    if outcome.failure is not None:
        reason = outcome.failure.value
        failures = {**totals.failures, reason: totals.failures.get(reason, 0) + 1}
        return totals.model_copy(update={"failures": failures})
    result = outcome.result
    if result is None:
        return totals.model_copy(update={"replaced": totals.replaced + 1})
    tokens = result.metrics.get(TOKENS, 0.0)
    if result.reused and totals.runs and totals.generation == result.generation:
        tokens = 0.0  # the attempt that made the result has counted them
    return StageTotals(
        stage=totals.stage,
        generation=result.generation,
        seconds=totals.seconds if result.reused else result.seconds,
        metrics=result.metrics,
        runs=totals.runs + 1,
        failures=totals.failures,
        replaced=totals.replaced,
        total_seconds=totals.total_seconds + result.seconds,
        gpu_seconds=totals.gpu_seconds + outcome.gpu_seconds,
        tokens=totals.tokens + tokens,
    )
