"""Totals of attempts: what a result that is used again adds to them."""

from __future__ import annotations

from tests.unit.operator.planner.simulated_world import START

from selfemo_api.metrics import TOKENS
from selfemo_api.results import StageResult
from selfemo_api.stages import Stage
from selfemo_api.status import EvolutionStatus, StageTotals
from selfemo_operator.planner.accounting import with_attempts_counted
from selfemo_operator.planner.types import AttemptOutcome


def result(**changes: object) -> StageResult:
    made = StageResult(
        stage=Stage.TRAIN,
        generation=1,
        manifest="file:///m",
        manifest_sha256="0" * 64,
        metrics={TOKENS: 1000.0},
        seconds=18_000.0,
    )
    return made.model_copy(update=changes)


def totals_after(*results: StageResult) -> StageTotals:
    status = EvolutionStatus(start_time=START)
    for one in results:
        status = with_attempts_counted(status, AttemptOutcome(Stage.TRAIN, one, 0.0), None)
    (totals,) = status.stages
    return totals


AGAIN = {"seconds": 0.0, "reused": True}


def test_a_result_that_is_used_again_adds_no_tokens_and_keeps_its_duration() -> None:
    totals = totals_after(result(), result(**AGAIN))
    assert (totals.tokens, totals.seconds, totals.runs) == (1000.0, 18_000.0, 2)


def test_a_result_whose_message_was_lost_is_counted_once() -> None:
    totals = totals_after(result(**AGAIN))
    assert (totals.tokens, totals.runs) == (1000.0, 1)


def test_the_next_generation_adds_its_tokens() -> None:
    totals = totals_after(result(), result(generation=2), result(generation=2, **AGAIN))
    assert (totals.tokens, totals.generation) == (2000.0, 2)
