"""The figures of docs/scale.md are those of `selfemo check`."""

from __future__ import annotations

import pytest
from tools import scale


def test_the_page_has_the_tables_of_its_functions() -> None:
    text = scale.PAGE.read_text()
    assert scale.page_text(text) == text, "run `make generate`"
    for name in scale.TABLES:
        assert f"<!-- table: {name} -->" in text


def test_a_changed_assumption_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "MELD", scale.MELD.model_copy(update={"episodes": 1}))
    text = scale.PAGE.read_text()
    assert scale.page_text(text) != text


def test_the_study_on_a_gpu_takes_an_hour_at_most() -> None:
    study = scale.load_study(scale.STUDY)
    assert 0.1 < sum(scale.row_hours(study, row) for row in study.rows) < 1.0
