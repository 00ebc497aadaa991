"""Recovery: an earlier result of the generation cannot be used, and is regenerated. Pure.

A stage cannot read it, or an edit changed what it depends on
(:mod:`selfemo_operator.planner.edits`).
The evolution goes back to the stage whose result is missing or damaged, and runs the stages from
there to the failed one again. Each of them checks its stored result: an intact one is reused.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import STAGE_ORDER, Stage, stages_of
from selfemo_api.status import FAILURE_MAX, EvolutionStatus, Reason, Recovery, StageFailure
from selfemo_operator.planner.promotion import with_open_generation
from selfemo_operator.planner.types import (
    AttemptOutcome,
    End,
    Failure,
    Progress,
    StageJob,
    StatusChanges,
)

#: The maximum number of recoveries of a generation. One is an accident, such as a folder that was
#: deleted. After three, something keeps damaging the storage, and running stages again costs more
#: than it helps.
MAX_RECOVERIES = 3


def after_damage(
    status: EvolutionStatus, spec: EvolutionSpec, failure: Failure, jobs: Sequence[StageJob]
) -> Progress:
    """Return the evolution after an attempt that could not read an earlier stage's result.

    Parameters
    ----------
    status
        The status, with the current generation and stage.
    spec
        The spec pinned for the current generation.
    failure
        The failure of the attempt. It names the stage whose result is damaged.
    jobs
        All Jobs of the evolution. The number of a new attempt must not be that of one of them.
    """
    stage, damaged = status.stage, failure.damaged
    if stage is None or damaged is None:
        raise ValueError("no result is damaged")
    message = f"generation {status.generation}, {stage.value}: {failure.message}"
    stages = stages_of(status.generation, warm_start=spec.has_warm_start)
    if damaged not in stages[: stages.index(stage) + 1]:
        return Progress(status, spec, end=End(Reason.BAD_INPUT, message))
    outcome = AttemptOutcome(stage, failure=StageFailure.RESULT_DAMAGED)
    goes_deeper = status.recoveries > 0 and _goes_deeper(status.recovery, stage, damaged)
    recoveries = status.recoveries + (not goes_deeper)
    if recoveries > MAX_RECOVERIES:
        text = (
            f"{message}; this generation has gone back {status.recoveries} times to regenerate "
            f"damaged results: find out what removes or changes files below {status.uri} (a "
            "lifecycle rule of the bucket, another program), stop it, and then edit the spec"
        )
        # The end counts the failure: an attempt that ends as bad input has no outcome.
        return Progress(status, spec, end=End(Reason.BAD_INPUT, text))
    status = with_open_generation(status)
    changes: StatusChanges = {
        "stage": damaged,
        "attempt": fresh_attempt(status, damaged, jobs, (stage, status.attempt)),
        "failures": 0,
        "disruptions": 0,
        "replaced_pods": 0,
        "recent_replacements": None,
        "retry_after": None,
        "last_failure": failure.message[:FAILURE_MAX],
        "recoveries": recoveries,
        "recovery": widened(status.recovery, Recovery(damaged=damaged, until=stage)),
    }
    return Progress(status.model_copy(update=changes), spec, outcome=outcome)


def _goes_deeper(recovery: Recovery | None, stage: Stage, damaged: Stage) -> bool:
    """Return whether a recovery continues to an earlier stage, before it has produced any result.

    A folder of a whole generation that was deleted is noticed stage by stage. It counts once.
    """
    if recovery is None or stage is not recovery.damaged:
        return False
    return STAGE_ORDER.index(damaged) < STAGE_ORDER.index(stage)


def widened(recovery: Recovery | None, other: Recovery) -> Recovery:
    """Return a recovery that includes the stages of two recoveries.

    Parameters
    ----------
    recovery
        The recovery in progress, or None.
    other
        The recovery that begins.
    """
    if recovery is None:
        return other
    return Recovery(
        damaged=min(recovery.damaged, other.damaged, key=STAGE_ORDER.index),
        until=max(recovery.until, other.until, key=STAGE_ORDER.index),
    )


def fresh_attempt(
    status: EvolutionStatus,
    stage: Stage,
    jobs: Sequence[StageJob],
    used: tuple[Stage, int] | None = None,
) -> int:
    """Return the number of an attempt of a stage that no Job has had.

    Parameters
    ----------
    status
        The status. Its totals count the attempts of the stage over the whole run.
    stage
        The stage.
    jobs
        All Jobs of the evolution.
    used
        A stage and the number of an attempt of it which is not counted in the totals yet.
    """
    numbers = [attempts_of(status, stage), *_numbers(status, stage, jobs)]
    if used is not None and used[0] is stage:
        numbers.append(used[1])
    return max(numbers) + 1


def next_attempt(status: EvolutionStatus, stage: Stage, jobs: Sequence[StageJob]) -> int:
    """Return the number of the attempt after the current one. No Job of its stage has it.

    A status that was restored from a backup may be behind its Jobs.

    Parameters
    ----------
    status
        The status, with the current attempt.
    stage
        The current stage.
    jobs
        All Jobs of the evolution.
    """
    return max([status.attempt, *_numbers(status, stage, jobs)]) + 1


def _numbers(status: EvolutionStatus, stage: Stage, jobs: Sequence[StageJob]) -> list[int]:
    """Return the attempt numbers of the Jobs that a stage of the current generation has."""
    return [j.attempt for j in jobs if (j.generation, j.stage) == (status.generation, stage)]


def attempts_of(status: EvolutionStatus, stage: Stage) -> int:
    """Return the number of attempts of a stage over the whole run, from the totals."""
    totals = next((totals for totals in status.stages if totals.stage is stage), None)
    return totals.runs + sum(totals.failures.values()) + totals.replaced if totals else 0


def repairs(status: EvolutionStatus, stage: Stage) -> bool:
    """Return whether a stage checks its stored result before it answers from it."""
    if status.recovery is None:
        return False
    first, last = (STAGE_ORDER.index(s) for s in (status.recovery.damaged, status.recovery.until))
    return first <= STAGE_ORDER.index(stage) <= last


def is_superseded(status: EvolutionStatus, job: StageJob) -> bool:
    """Return whether a Job has ended and belongs to a stage that a recovery runs again.

    Its stage may come after the current one. This does not mean that the status is an old one.
    """
    same = job.generation == status.generation
    return same and job.state.is_final and repairs(status, job.stage)


def with_result(results: Sequence[StageResult], result: StageResult) -> list[StageResult]:
    """Return the results of a generation with one that was just recorded.

    In a recovery, the stage may have a result. An equal one changes nothing, so that the time of
    the attempt that made it is kept. If the new one differs, the results of later stages follow
    from the old one, and are left out.

    Parameters
    ----------
    results
        The results before, in the order of the stages.
    result
        The result of the current stage.
    """
    stages = [r.stage for r in results]
    if result.stage not in stages:
        return [*results, result]
    index = stages.index(result.stage)
    if results[index].manifest_sha256 == result.manifest_sha256:
        return list(results)
    return [*results[:index], result]
