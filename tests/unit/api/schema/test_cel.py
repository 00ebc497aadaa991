"""Rules are compiled once, and their results for equal parts of a spec are computed once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.api_model import ApiModel
from selfemo_api.schema import cel, rules
from selfemo_api.schema.rules import check_resolved


def test_many_threads_that_need_a_program_compile_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first program takes a quarter of a second, and all others wait for the processor."""
    compiled: list[str] = []
    make = cel.celpy.Environment

    def environment(**options: Any) -> Any:
        compiled.append("program")
        return make(**options)

    monkeypatch.setattr(cel.celpy, "Environment", environment)
    expression, barrier = "self.a + 41 == 42", threading.Barrier(8)
    results: list[list[bool]] = []

    def work() -> None:
        barrier.wait(60)
        results.append(cel.evaluate([expression], {"self": {"a": 1}}))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [[True]] * 8
    assert compiled == ["program"]


def test_after_the_preparation_a_check_compiles_nothing() -> None:
    rules.prepare()
    before = cel._compiled.cache_info().misses
    assert check_resolved(spec_of()) == []
    assert cel._compiled.cache_info().misses == before


def test_a_check_of_a_similar_spec_evaluates_only_what_differs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluated: list[Any] = []

    def evaluate(expressions: Any, values: Any) -> Any:
        evaluated.append(values["self"])
        return cel.evaluate(expressions, values)

    monkeypatch.setattr(rules, "evaluate", evaluate)
    rules._cached_result.cache_clear()
    check_resolved(spec_of(seed=90_001))
    assert evaluated
    evaluated.clear()
    spec = spec_of(seed=90_002)
    check_resolved(spec)
    assert evaluated == [], "no rule reads the seed"
    reward = spec.reward.model_copy(update={"max_words": 4_321})
    check_resolved(spec.model_copy(update={"reward": reward}))
    assert evaluated
    assert all("4321" in str(value) for value in evaluated), "only rules of the reward"
    evaluated.clear()
    check_resolved(spec.model_copy(update={"reward": reward}))
    assert evaluated == []


def test_a_rule_gets_each_field_that_it_reads() -> None:
    """The rules of the types have no field that their type lacks, so none of them is cut off."""
    checked = 0
    for model in rules._models(ApiModel):
        names = {field.alias or name for name, field in model.model_fields.items()}
        for rule in model.rules:
            read = rules.fields_read(rule.expression)
            assert read is None or (read and read <= names), rule.expression
            checked += read is not None
    assert checked > 30


@pytest.mark.parametrize(
    ("expression", "fields"),
    [
        ("has(self.a) && self.b.c > 1", {"a", "b"}),
        ("self.a == oldSelf.b", {"a", "b"}),
        ("self.items.all(item, item.self.a > 1)", {"items", "a"}),
        ("self == oldSelf", None),
        ("self.all(item, item > 1)", None),
        ("self.__in__ == 1", None),
        ("size(self) > 1", None),
        ("'self' in self.a", None),
    ],
)
def test_fields_that_a_rule_reads(expression: str, fields: set[str] | None) -> None:
    assert rules.fields_read(expression) == fields


def test_a_large_part_is_checked_without_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_CACHED_BYTES", 1)
    rules._cached_result.cache_clear()
    assert check_resolved(spec_of(seed=90_003)) == []
    assert rules._cached_result.cache_info().currsize == 0


def test_a_broken_rule_is_reported_each_time() -> None:
    spec = spec_of(seed=90_004)
    reward = spec.reward.model_copy(update={"min_words": 9, "max_words": 3})
    broken = spec.model_copy(update={"reward": reward})
    problems = check_resolved(broken)
    assert [problem.message for problem in problems] == ["`minWords` must be less than `maxWords`"]
    assert check_resolved(broken) == problems
