"""Rules are compiled once, and their results for equal parts of a spec are computed once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests.unit.operator.planner.simulated_world import spec_of

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
    check_resolved(spec_of(seed=90_001))
    first = len(evaluated)
    check_resolved(spec_of(seed=90_002))
    assert first >= 1
    assert [value["seed"] for value in evaluated[first:]] == [90_002], "the spec as a whole"
    check_resolved(spec_of(seed=90_002))
    assert len(evaluated) == first + 1


def test_a_large_part_is_checked_without_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_CACHED_BYTES", 10)
    before = rules._cached_results.cache_info().currsize
    assert check_resolved(spec_of(seed=90_003)) == []
    assert rules._cached_results.cache_info().currsize == before


def test_a_broken_rule_is_reported_each_time() -> None:
    spec = spec_of(seed=90_004)
    reward = spec.reward.model_copy(update={"min_words": 9, "max_words": 3})
    broken = spec.model_copy(update={"reward": reward})
    problems = check_resolved(broken)
    assert [problem.message for problem in problems] == ["`minWords` must be less than `maxWords`"]
    assert check_resolved(broken) == problems
