"""Kubernetes Events: one for each change, with stable reasons."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.operator.controller.fake_api import NAMESPACE, Ending, FakeApiServer
from tests.unit.operator.controller.fake_operator import FakeOperator, run_until_idle
from tests.unit.operator.controller.kube_objects import NOW, evolution_of
from tests.unit.operator.planner.simulated_world import World, spec_of
from tests.unit.operator.planner.test_plan import to_stage

from selfemo_api.results import StageResult
from selfemo_api.stages import Stage
from selfemo_api.status import Current, EvolutionStatus, Outcome, Reason
from selfemo_operator.controller.objects.events import (
    MESSAGE_MAX,
    Event,
    EventReason,
    event_manifest,
    events_between,
)
from selfemo_operator.planner.conditions import with_conditions
from selfemo_operator.planner.types import End

A, B = EventReason.STARTED, EventReason.RESUMED
AT: dict[str, Any] = {"generation": 1, "stage": Stage.SCORE, "attempt": 2, "start_time": NOW}


def status(**fields: Any) -> EvolutionStatus:
    return EvolutionStatus(**{**AT, **fields})


def reasons(before: EvolutionStatus, after: EvolutionStatus) -> list[str]:
    return [e.reason.value for e in events_between(before, after)]


def test_an_unchanged_status_has_no_event() -> None:
    one = status(failures=1, last_failure="x", suspended_time=NOW)
    assert events_between(one, one) == []


def test_the_start_is_an_event() -> None:
    assert reasons(EvolutionStatus(), status()) == ["Started"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((0, 0), (1, 0), ["StageFailed"]),
        ((1, 0), (2, 0), ["StageFailed"]),
        ((1, 0), (1, 1), ["StageDisrupted"]),
        ((2, 1), (0, 0), []),
        ((1, 1), (1, 1), []),
    ],
)
def test_failures_and_disruptions_are_events(
    before: tuple[int, int], after: tuple[int, int], expected: list[str]
) -> None:
    def at(counts: tuple[int, int]) -> EvolutionStatus:
        return status(failures=counts[0], disruptions=counts[1], last_failure="out of disk")

    events = events_between(at(before), at(after))
    assert [e.reason for e in events] == expected
    for event in events:
        assert event.warning
        assert event.message == "generation 1, Score, attempt 2: out of disk"


def test_a_suspension_and_its_end_are_events() -> None:
    assert reasons(status(), status(suspended_time=NOW)) == ["Suspended"]
    assert reasons(status(suspended_time=NOW), status()) == ["Resumed"]


def test_an_edit_that_is_refused_again_for_another_reason_is_an_event() -> None:
    def refused(message: str) -> EvolutionStatus:
        return with_conditions(
            EvolutionStatus(completion_time=NOW),
            now=NOW,
            observed_generation=1,
            suspended=False,
            job=None,
            end=End(Reason.BAD_INPUT, message),
        )

    first, second = refused("spec: one rule"), refused("spec: another rule")
    assert reasons(EvolutionStatus(), first) == ["BadInput"]
    (event,) = events_between(first, second)
    assert (event.reason, event.message, event.warning) == ("BadInput", "spec: another rule", True)
    assert reasons(second, second) == []


def test_the_check_and_the_warm_start_are_events_with_their_figures() -> None:
    def done(*results: StageResult) -> EvolutionStatus:
        current = Current(spec={}, policy_uri="s3://b/m", judge_uri="s3://b/m")
        return EvolutionStatus(
            generation=0,
            start_time=NOW,
            current=current.model_copy(update={"results": list(results)}),
        )

    def result(stage: Stage, **metrics: float) -> StageResult:
        return StageResult(
            stage=stage,
            generation=0,
            manifest="s3://b/manifest.json",
            manifest_sha256="0" * 64,
            metrics=metrics,
        )

    check = result(Stage.CHECK, dialogues=90, utterances=700, warnings=1)
    start = result(Stage.WARM_START, weightedF1Before=0.05, weightedF1=0.4, bestStep=80)
    assert events_between(done(), done(check)) == [
        Event(
            "InputChecked",
            "generation 0, Check: no problems in 90 dialogues, 700 utterances; warnings: 1",
        )
    ]
    assert events_between(done(check), done(check, start)) == [
        Event(
            "WarmStarted",
            "generation 0, WarmStart: weighted F1 0.0500 -> 0.4000 after 80 steps",
        )
    ]
    assert events_between(done(check, start), done(check, start)) == []


def recorded_reasons(server: FakeApiServer) -> list[str]:
    events = [e for e in server.of("events") if e["involvedObject"]["kind"] == "EmotionEvolution"]
    return [e["reason"] for e in events]


def test_a_run_records_its_events_in_order() -> None:
    server = FakeApiServer()
    server.add_evolution(stopping={"maxGenerations": 1})
    ends: list[Ending] = ["gone", 1]
    run_until_idle(server, ending=lambda name: ends.pop() if ends else 0)
    assert recorded_reasons(server) == [
        "Started",
        "StageFailed",
        "StageDisrupted",
        "InputChecked",
        "GenerationBaseline",
        "GenerationPromoted",
        "MaxGenerationsReached",
    ]
    kinds = {e["reason"]: e["type"] for e in server.of("events")}
    assert kinds["StageFailed"] == "Warning"
    assert kinds["MaxGenerationsReached"] == "Normal"


def test_a_failure_is_a_warning_and_an_edit_reopens() -> None:
    server = FakeApiServer()
    server.add_evolution(failurePolicy={"maxAttempts": 1})
    operator = run_until_idle(server, ending=lambda _: 2)
    assert recorded_reasons(server) == ["Started", "BadInput"]
    assert server.of("events")[-1]["type"] == "Warning"
    server.edit(ttlSecondsAfterFinished=1000)
    operator.receive_events()
    FakeOperator(server).reconcile()
    assert recorded_reasons(server) == ["Started", "BadInput", "Reopened"]


def test_the_event_object() -> None:
    evolution = evolution_of()
    event = event_manifest(evolution, Event(EventReason.STARTED, "x" * 5000), NOW, "pod-" * 100)
    assert event["involvedObject"]["namespace"] == event["metadata"]["namespace"] == "team"
    assert event["involvedObject"]["uid"] == evolution.metadata.uid
    assert len(event["message"]) == MESSAGE_MAX
    assert len(event["reportingInstance"]) == 128
    assert event["firstTimestamp"] == "2026-01-01T12:00:00Z"
    assert NAMESPACE == "team"


@pytest.mark.parametrize(
    "text",
    ["\u8bed" * 1024, "\u00e9" * 700 + "x" * 400, "\U0001f600" * 999],
    ids=["three bytes", "two bytes", "four bytes"],
)
def test_the_bound_of_a_message_is_in_bytes(text: str) -> None:
    """The API server refuses a longer one, so that the Event would be lost."""
    message = event_manifest(evolution_of(), Event(A, text), NOW, "pod")["message"]
    assert MESSAGE_MAX - 4 < len(message.encode()) <= MESSAGE_MAX
    assert text.startswith(message)


def test_lines_of_a_message_are_left_out_by_bytes() -> None:
    lines = ["2 problems", *("\u8bed" * 200 for _ in range(3))]
    message = event_manifest(evolution_of(), Event(A, "\n".join(lines)), NOW, "pod")["message"]
    assert len(message.encode()) <= MESSAGE_MAX
    assert message.splitlines()[-1] == "and 2 more lines: the condition lists all of them"


def test_a_damaged_result_is_a_warning_with_the_stage_that_is_run_again() -> None:
    world = World(spec=spec_of())
    to_stage(world, 1, Stage.SCORE)
    before = world.status
    world.fail("demo-g001-score-1", 65, damaged=Stage.SELF_PLAY)
    world.damage(1, Stage.SELF_PLAY)
    world.reconcile()
    assert events_between(before, world.status) == [
        Event(
            "ResultDamaged",
            "generation 1, Score, attempt 1: it broke; SelfPlay and the stages after it run again",
            warning=True,
        )
    ]


def test_a_recovery_from_publish_announces_the_generation_that_is_decided_again_alone() -> None:
    world = World(spec=spec_of(stopping={"maxGenerations": 2}))
    to_stage(world, 2, Stage.PUBLISH)
    world.damage(2, Stage.TRAIN)
    assert world.current is not None
    world.succeed(world.current.name)
    before = world.status
    world.reconcile()
    assert [record.generation for record in world.status.history] == [0, 1]
    assert reasons(before, world.status) == ["ResultDamaged"]
    to_stage(world, 2, Stage.EVALUATE)
    before = world.status
    to_stage(world, 2, Stage.PUBLISH)
    assert reasons(before, world.status) == ["GenerationPromoted"]


def test_pods_that_were_replaced_are_a_warning() -> None:
    before = evolution_of().status
    after = before.model_copy(update={"replaced_pods": 3})
    assert events_between(before, after) == [
        Event(
            "PodsReplaced",
            "generation 0, Evaluate, attempt 1: pods that were removed and recreated: 3",
            warning=True,
        )
    ]


def test_an_events_name_follows_from_its_content() -> None:
    def name(event: Event, seconds: int = 0, version: str = "77") -> str:
        evolution = evolution_of()
        metadata = evolution.metadata.model_copy(update={"resource_version": version})
        evolution = evolution.model_copy(update={"metadata": metadata})
        manifest = event_manifest(evolution, event, NOW + timedelta(seconds=seconds), "pod")
        return str(manifest["metadata"]["name"])

    one = name(Event(A, "x"))
    assert one == name(Event(A, "x"), seconds=9)
    others = {name(Event(B, "x")), name(Event(A, "y")), name(Event(A, "x"), version="78")}
    assert len({one, *others}) == 4


@pytest.mark.parametrize("outcome", list(Outcome))
def test_each_outcome_of_a_generation_has_a_reason(outcome: Outcome) -> None:
    assert EventReason(f"Generation{outcome.value}")
