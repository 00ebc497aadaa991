"""The problems of an input: a condition and an Event have a line for each, and no stage follows."""

from __future__ import annotations

import pytest
from tests.unit.operator.controller.fake_api import FakeApiServer
from tests.unit.operator.controller.fake_operator import run_until_idle

from selfemo_api.status import ConditionType
from selfemo_operator.controller.objects.events import MESSAGE_MAX, shortened

PROBLEMS = (
    "dataset.sources[1].uri: data://mine/dev.jsonl: /data/mine/dev.jsonl does not exist",
    "model.uri: the model is quantized (awq, 4 bits): use the unquantized model",
    "overrides.selfPlay.maxTokens.recognizer: is 1, but the label `困惑` has 4 tokens",
)


def test_a_condition_and_an_event_have_all_problems() -> None:
    server = FakeApiServer(error="\n".join(["3 problems", *PROBLEMS]))
    server.add_evolution()
    run_until_idle(server, ending=lambda _: 2)
    assert [name.partition("-g")[2] for name in server.created] == ["000-check-1"]
    (evolution,) = server.of("emotionevolutions")
    status = evolution["status"]
    assert (status["phase"], status["stage"], status["generation"]) == ("Failed", "Check", 0)
    text = "\n".join(["generation 0, Check: 3 problems", *PROBLEMS])
    conditions = {condition["type"]: condition for condition in status["conditions"]}
    for kind, value in ((ConditionType.SUCCEEDED, "False"), (ConditionType.STALLED, "True")):
        condition = conditions[kind.value]
        assert (condition["status"], condition["reason"]) == (value, "BadInput")
        assert condition["message"] == text
    event = server.of("events")[-1]
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "BadInput", text)


def test_after_an_edit_the_input_is_checked_again() -> None:
    server = FakeApiServer(error="model.uri: does not exist")
    server.add_evolution(stopping={"maxGenerations": 1})
    operator = run_until_idle(server, ending=lambda _: 2)
    server.edit(failurePolicy={"maxAttempts": 9})
    operator.receive_events()
    run_until_idle(server)
    assert [name.partition("-g")[2] for name in server.created][:3] == [
        *("000-check-1", "000-check-2", "000-evaluate-1")
    ]


@pytest.mark.parametrize("count", [3, 12, 40])
def test_an_event_has_whole_lines_and_the_number_of_the_others(count: int) -> None:
    lines = [f"{count} problems", *(f"dataset.sources[{i}].uri: {'x' * 100}" for i in range(count))]
    message = "\n".join(lines)
    text = shortened(message)
    assert len(text) <= MESSAGE_MAX
    if len(message) <= MESSAGE_MAX:
        assert text == message
        return
    *shown, last = text.splitlines()
    assert shown == lines[: len(shown)]
    assert last == f"and {len(lines) - len(shown)} more lines: the condition lists all of them"


def test_an_endless_line_is_cut() -> None:
    assert shortened("x" * 5000) == "x" * MESSAGE_MAX
    assert shortened("heading\n" + "x" * 5000) == ("heading\n" + "x" * 5000)[:MESSAGE_MAX]
