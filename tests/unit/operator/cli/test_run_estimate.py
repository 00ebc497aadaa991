"""The estimate of `selfemo check` as text."""

from __future__ import annotations

from typing import Any

from selfemo_operator.cli.run_estimate import estimate_lines

ESTIMATE: dict[str, Any] = {
    "generations": 3,
    "device": "H100",
    "gpuHours": 12.3,
    "stages": {
        "SelfPlay": {"read": 1_500_000, "generated": 20_000, "trained": 0, "gpuHours": 2.0},
        "Train": {"read": 900, "generated": 0, "trained": 7_000_000_000, "gpuHours": 10.3},
    },
    "engineStarts": 13,
    "storage": {"storedBytes": 2**31, "writtenBytes": 2**40, "readBytes": 5, "requests": 12_345},
    "kubernetes": {"jobs": 21, "pods": 42, "writes": 42},
}


def test_an_estimate_with_hours() -> None:
    assert estimate_lines(ESTIMATE) == [
        "3 generations at most: about 12.3 hours of one H100",
        "stage     tokens read  generated  trained  GPU hours",
        "SelfPlay        1.5 M     20.0 k        -       2.00",
        "Train             900          -    7.0 G      10.30",
        "storage: 1.0 TiB written, 2.0 GiB of it kept; 5 bytes read; about 12,345 requests",
        "stages: 21 Jobs, 42 pods, about 42 operator writes; models are loaded 13 times",
    ]


def test_a_run_on_the_processor_has_no_hours() -> None:
    estimate = {**ESTIMATE, "device": "", "generations": 1}
    lines = estimate_lines(estimate)
    assert lines[0] == "1 generation at most"
    assert "GPU" not in "".join(lines)
