"""Quantities of resources as numbers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_operator.controller.objects.quantities import quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", "0"),
        ("250m", "0.25"),
        (".5", "0.5"),
        ("1.", "1"),
        ("+2k", "2000"),
        ("1Ki", "1024"),
        ("1.5Gi", "1610612736"),
        ("3E", "3e18"),
        ("12e6", "12000000"),
        ("1E3", "1000"),
        ("7n", "0.000000007"),
        (4, "4"),
        (0.5, "0.5"),
    ],
)
def test_the_forms_of_kubernetes(text: Any, number: str) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize(
    "value", ["", "m", "Gi", "1 Gi", "1gi", "1K", "0x1", "nan", "inf", True, None, [], {}, "9" * 99]
)
def test_what_is_not_a_quantity(value: Any) -> None:
    assert quantity(value) is None


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_none(text: str) -> None:
    number = quantity(text)
    assert number is None or number.is_finite()


@given(st.integers(0, 10**9), st.sampled_from([("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4)]))
def test_a_binary_suffix_is_a_power_of_1024(count: int, suffix: tuple[str, int]) -> None:
    assert quantity(f"{count}{suffix[0]}") == count * 1024 ** suffix[1]
