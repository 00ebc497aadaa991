"""How well dev's changes predict test's is computed, and stands on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.study.made_up import DOCUMENT, finish, study

from selfemo_study.promotion_correlation import correlate_promotions, f1_change
from selfemo_study.results_writer import write_results
from selfemo_study.study_folders import StudyFolders

LABELS = ["neutral", "joy"]


def step(dev: float, test: float, weighted: float | None = None) -> dict[str, Any]:
    return {"dev": dev, "devWeighed": weighted, "change": {"value": test}}


def test_a_change_by_hand() -> None:
    # of four neutral and one joyful utterance, all right; then the joyful one is called neutral
    before, after = np.array([[[4, 0], [0, 1]]]), np.array([[[4, 0], [1, 0]]])
    assert f1_change(before, after, LABELS) == pytest.approx((8 / 9) * 4 / 5 - 1)
    # half of them joyful: neutral is right in 2.5 of 5, joy in none of 2.5
    even = f1_change(before, after, LABELS, {"neutral": 0.5, "joy": 0.5})
    assert even == pytest.approx(2 * 2.5 / 7.5 / 2 - 1)


def test_the_correlation_with_and_without_weights() -> None:
    steps = [step(0.1, -0.2, -0.2), step(0.2, 0.1, 0.1), step(0.3, 0.1, 0.1), step(0.1, 0.3, 0.3)]
    found = correlate_promotions(steps)
    assert found is not None
    assert found.promotions == 4
    assert found.weighted == pytest.approx(1.0)
    assert found.plain == pytest.approx(np.corrcoef([1, 2, 3, 1], [-2, 1, 1, 3])[0, 1])
    unweighed = correlate_promotions([step(0.1, 0.1), step(0.2, 0.2), step(0.1, 0.1)])
    assert unweighed is not None
    assert unweighed.to_json() == {
        "promotions": 3,
        "correlation": 1.0,
        "correlationWeighed": None,
    }


def test_too_little_data_has_no_correlation() -> None:
    assert correlate_promotions([step(0.1, 0.1), step(0.2, 0.2)]) is None
    assert correlate_promotions([step(0.1, 0.1), step(0.1, 0.2), step(0.1, 0.3)]) is None


@pytest.mark.parametrize("prior", [None, {"neutral": 0.6, "joy": 0.3, "anger": 0.1}])
def test_the_correlation_is_on_the_page(tmp_path: Path, prior: dict[str, float] | None) -> None:
    dataset = {**DOCUMENT["spec"]["dataset"], **({"labelPrior": prior} if prior else {})}
    made = study(spec={**DOCUMENT["spec"], "dataset": dataset}, seeds=[1, 2, 3])
    folders = StudyFolders(tmp_path / "studies")
    for seed, (dev, test) in enumerate([(1, 1), (2, 2), (2, 3)], start=1):
        right = {(0, "dev"): 0, (1, "dev"): dev, (0, "test"): 0, (1, "test"): test}
        finish(made, folders, "main", seed, right, ["Baseline", "Promoted"], best=1)
    page = write_results(made, folders, tmp_path, tmp_path).read_text()
    gate = json.loads((tmp_path / "made-up.json").read_text())["gate"]
    assert gate["promotions"] == 3
    assert 0 < gate["correlation"] < 1
    assert (
        "Over 3 promotions of all rows, the changes on dev and on test correlate with r = " in page
    )
    assert ("as `evaluation.useLabelPrior` does" in page) is (prior is not None)
    assert (gate["correlationWeighed"] is not None) is (prior is not None)
