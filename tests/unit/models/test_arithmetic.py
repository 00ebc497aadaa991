"""Tests of the word about bfloat16 on processors that are slow at it."""

from __future__ import annotations

import pytest

from selfemo_jobs.models import arithmetic


def test_a_slow_processor_is_told_what_to_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arithmetic, "bfloat16_slowness", lambda: 6.04)
    arithmetic.warn_of_slow_bfloat16("`training.precision: Float32`")
    assert caplog.messages == [
        "`training.precision: Float32` is quicker here: this processor takes 6.0 times as long for "
        "products of bfloat16"
    ]


def test_a_quick_one_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(arithmetic, "bfloat16_slowness", lambda: 0.6)
    arithmetic.warn_of_slow_bfloat16("`training.precision: Float32`")
    assert not caplog.messages


def test_it_is_measured() -> None:
    assert 0.01 < arithmetic.bfloat16_slowness() < 1000
