"""Plain scalars: what kubectl reads in them. The table is the output of sigs.k8s.io/yaml 1.6."""

from __future__ import annotations

import math
from typing import Any

import pytest

from selfemo_api.schema.strict_yaml import is_plain_text, parse_yaml

READ_AS: dict[str, Any] = {
    "008": 8,
    "08": 8,
    "010": 8,
    "0o10": 8,
    "0O10": 8,
    "0o8": "0o8",
    "007": 7,
    "00": 0,
    "-0": 0,
    "0x1F": 31,
    "0X1f": 31,
    "+0x1f": 31,
    "0x": "0x",
    "0b101": 5,
    "-0b11": -3,
    "0b12": "0b12",
    "1_000": 1000,
    "1_000.5": 1000.5,
    "_1": "_1",
    "1__": 1,
    "0_7": 7,
    "+7": 7,
    "-7": -7,
    "1:30": "1:30",
    "190:20:30": "190:20:30",
    "1.5": 1.5,
    ".5": 0.5,
    "+.5": 0.5,
    "5.": 5,
    "._5": "._5",
    "089.5": 89.5,
    "1e6": 1_000_000,
    "1E+6": 1_000_000,
    "1_e5": 100_000,
    ".5e3": 500,
    "1e": "1e",
    "1e400": "1e400",
    "9223372036854775808": 9223372036854775808,
    "18446744073709551615": 18446744073709551615,
    "18446744073709551616": 18446744073709552000.0,
    "0x1ffffffffffffffff": "0x1ffffffffffffffff",
    "y": True,
    "N": False,
    "yes": True,
    "off": False,
    "True": True,
    "tRue": "tRue",
    "~": None,
    "Null": None,
    "2001-01-01": "2001-01-01",
    "1.2.3": "1.2.3",
    "+": "+",
    "=": "=",
    "joy": "joy",
    "no joy": "no joy",
}


@pytest.mark.parametrize(("text", "value"), READ_AS.items())
def test_a_plain_scalar_is_read_as_by_kubectl(text: str, value: Any) -> None:
    read = parse_yaml(f"a: {text}")[0]["a"]
    assert (read, isinstance(read, bool)) == (value, isinstance(value, bool))
    assert isinstance(read, str) == isinstance(value, str)
    assert is_plain_text(text) == isinstance(value, str)
    assert parse_yaml(f"a: '{text}'")[0]["a"] == text


def test_infinity_and_nan_are_numbers_that_json_has_not() -> None:
    values = parse_yaml("[.inf, -.INF, .NaN]")[0]
    assert values[:2] == [math.inf, -math.inf]
    assert math.isnan(values[2])
    assert not is_plain_text(".inf")
