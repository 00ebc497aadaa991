"""The rules of a label set that comes from no spec."""

from __future__ import annotations

import pytest

from selfemo_jobs.datasets.label_set import check_label_set
from selfemo_jobs.errors import BadInput


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["joy"], "must be two or more"),
        (["joy", "joy"], "without duplicates"),
        (["joy", ""], "`` cannot be a label"),
        (["joy", " anger"], "` anger` cannot be a label"),
        (["joy", "x" * 65], "cannot be a label: a label has 1 to 64 characters"),
        (["joy", "fear; awe"], "`fear; awe` cannot be a label"),
        (["joy", "Joy"], "`joy` and `Joy` are the same label"),
        (["joy", "ｊｏｙ"], "are the same in an answer"),
        ([f"label{n}" for n in range(65)], "the labels are 65, but at most 64 are allowed"),
    ],
)
def test_labels_that_no_run_takes(labels: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_label_set(labels, "the labels")


def test_labels_of_any_script() -> None:
    check_label_set(["Überraschung", "愤怒", "no emotion"], "the labels")
