"""A small text cannot make a command work for long: documents are bounded by counts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfemo_api.schema import conformance, strict_yaml
from selfemo_api.schema.plain_numbers import MAX_NUMBER
from selfemo_api.schema.strict_yaml import (
    MAX_DEPTH,
    MAX_KEY,
    MAX_VALUES,
    PARSE_ERRORS,
    parse_documents,
    parse_yaml,
)
from selfemo_api.schema.validation import InvalidEvolution, load_evolution, load_evolutions


def lists_of_aliases(levels: int) -> str:
    """Return the "billion laughs": each level has nine times the values of the one before."""
    lines = ["l0: &l0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    for level in range(1, levels + 1):
        names = ", ".join([f"*l{level - 1}"] * 9)
        lines.append(f"l{level}: &l{level} [{names}]")
    return "\n".join(lines)


def merged_mappings(levels: int) -> str:
    """Return mappings of which each merges nine times the one before."""
    lines = ["m0: &m0 {a: 1, b: 2}"]
    for level in range(1, levels + 1):
        names = ", ".join([f"*m{level - 1}"] * 9)
        lines.append(f"m{level}: &m{level} {{<<: [{names}]}}")
    return "\n".join(lines)


def many_keys(count: int) -> str:
    return "\n".join(f"k{number}: 1" for number in range(count))


BOMBS = {
    "lists of aliases": (lists_of_aliases(9), "more than 50,000 values"),
    "merged mappings": (merged_mappings(9), "more than 50,000 values"),
    "an alias inside of what it names": ("a: &a [[*a]]", "is nested too deeply"),
    "lists in lists": ("[" * 100_000, "is nested too deeply"),
    "mappings in mappings": ("{a: " * 100_000, "is nested too deeply"),
    "depth by aliases": (
        "a0: &a0 [1]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 80)),
        "is nested too deeply",
    ),
    "many values": (f"[{'1, ' * (MAX_VALUES + 1)}]", "more than 50,000 values"),
    "digits": (f"a: {'9' * 100_000}", "a number of 100000 characters"),
    "hexadecimal digits": (f"a: 0x{'f' * 100_000}", "a number of 100002 characters"),
    "a fraction": (f"a: 0.{'9' * 100_000}", "a number of 100002 characters"),
    "underscores": (f"a: 1{'_5' * 100_000}", "a number of 200001 characters"),
    "a tagged number": (f"a: !!int '{'9' * 200}'", "a number of 200 characters"),
    "a long key": (f"? {'k' * 100_000}\n: 1", "a key of 100000 characters"),
    "a tag": (f"a: !{'t' * 100_000} 1", "could not determine a constructor"),
}


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the values that are visited, one entry for each."""
    counted: list[str] = []
    for owner, name in (
        (yaml.composer.Composer, "compose_node"),
        (strict_yaml, "_check_keys"),
        (conformance, "_conform"),
    ):
        function = getattr(owner, name)

        def count(*arguments: Any, function: Any = function, name: str = name) -> Any:
            counted.append(name)
            return function(*arguments)

        monkeypatch.setattr(owner, name, count)
    return counted


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_after_few_visits(name: str, visits: list[str], tmp_path: Path) -> None:
    text, message = BOMBS[name]
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    with pytest.raises(InvalidEvolution) as caught:
        load_evolution(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 600
    assert len(visits) <= (2 * MAX_VALUES if name == "many values" else 3000)


@pytest.mark.parametrize("name", BOMBS)
def test_each_document_of_a_text_is_bounded(name: str) -> None:
    text, message = BOMBS[name]
    with pytest.raises(InvalidEvolution, match=message):
        load_evolutions("all.yaml", f"a: 1\n---\n{text}")


def test_many_problems_are_looked_up_a_hundred_times(visits: list[str], tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(many_keys(5000))
    with pytest.raises(InvalidEvolution) as caught:
        load_evolution(path)
    assert len(caught.value.problems) == 101
    assert str(caught.value).endswith("more problems")
    assert visits.count("_conform") < 10


def test_a_long_value_is_quoted_in_part(tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    path.write_text(f"spec: {{seed: {'x' * 100_000}, recipe: {'x' * 100_000}}}")
    with pytest.raises(InvalidEvolution) as caught:
        load_evolution(path)
    assert max(map(len, str(caught.value).splitlines())) < 2000


@pytest.mark.parametrize(
    "text",
    [
        *("!!bool maybe", "!!int ''", "!!float ''", "!!timestamp now", "!!binary é", "!!null x"),
        *("!!set x", "!!omap x", "!!pairs x", "!!map x", "!!seq x", "<<: 1", "<<: [1]", "{<<: x}"),
        *("!!float 0x", "!!int 0b", "!!int '1:'", "!!float '1:x'", "*a", "&a", "&a a: &a b"),
        *("? {a: 1}\n: 2", "!!python/name:os.system x", "%YAML 3.0\n---\na", "\x00", "\ud800"),
    ],
)
def test_an_odd_document_raises_what_callers_expect(text: str) -> None:
    for read in (parse_yaml, parse_documents):
        with contextlib.suppress(*PARSE_ERRORS):
            read(text)


def test_aliases_of_people_are_read() -> None:
    text = "env: &env [{name: A, value: x}]\ntemplates: [{env: *env}, {env: *env, <<: {a: 1}}]"
    value, _ = parse_yaml(text)
    assert value["templates"] == [{"env": value["env"]}, {"env": value["env"], "a": 1}]


def test_values_at_the_bounds_are_read() -> None:
    assert len(parse_yaml(f"[{'1, ' * (MAX_VALUES - 1)}]")[0]) == MAX_VALUES - 1
    assert parse_yaml("9" * MAX_NUMBER)[0] == float("9" * MAX_NUMBER)  # of over 64 bits
    assert parse_yaml(f"1{':59' * 100_000}")[0] == f"1{':59' * 100_000}"
    assert parse_yaml(f"? {'k' * MAX_KEY}\n: 1")[0] == {"k" * MAX_KEY: 1}
    value, _ = parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == []
