"""The date that chat templates print does not follow the clock."""

from __future__ import annotations

import pytest

from selfemo_jobs.prompts.prompt_date import date_parts, strftime_now


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d %b %Y", "26 Jul 2024"),  # Llama 3.2
        ("%d %B %Y", "26 July 2024"),  # SmolLM3
        ("%B %d, %Y", "July 26, 2024"),  # Granite
        ("%Y-%m-%d %H:%M", "2024-07-26 00:00"),
    ],
)
def test_the_date_in_any_form(form: str, text: str) -> None:
    assert strftime_now(form) == text


def test_the_parts_of_a_date_that_a_template_asks_for() -> None:
    template = "{%- if x -%}{{ strftime_now('%A, %-d %b') }}{% endif %}{{ '%d' }}"
    assert date_parts(template) == {"%-d": "26", "%A": "Friday", "%b": "Jul", "%d": "26"}
    assert date_parts(template.replace("strftime_now", "today")) == {}
