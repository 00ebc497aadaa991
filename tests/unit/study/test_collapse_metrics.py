"""The distance from a collapse follows from the counts of a row."""

from __future__ import annotations

import math

import numpy as np
import pytest

from selfemo_study.collapse_metrics import collapse_metrics_by_generation
from selfemo_study.statistics import Confusion

EVEN = [[2, 0], [0, 2]]
ONE_LABEL = [[2, 0], [2, 0]]
THREE_TO_ONE = [[2, 0], [1, 1]]


def counts(*dialogues: list[list[int]]) -> Confusion:
    return np.array(dialogues, dtype=np.int64)


def test_the_metrics_are_those_of_the_predicted_labels() -> None:
    metrics = collapse_metrics_by_generation(
        {
            (0, "dev"): counts(EVEN, EVEN),
            (1, "dev"): counts(EVEN, EVEN),
            (2, "dev"): counts(ONE_LABEL, ONE_LABEL),
            (3, "dev"): counts(ONE_LABEL, EVEN),
            (3, "test"): counts(ONE_LABEL),
        }
    )
    assert sorted(metrics) == [1, 2, 3]
    assert (metrics[1].entropy, metrics[1].divergence) == (1.0, 0.0)
    assert metrics[2].entropy == 0.0
    # of (1, 0) and (1/2, 1/2), whose mean is (3/4, 1/4)
    assert metrics[2].divergence == pytest.approx(
        math.log2(4 / 3) / 2 + (math.log2(2 / 3) + math.log2(2)) / 4
    )
    shares = collapse_metrics_by_generation(
        {(0, "dev"): counts(EVEN), (1, "dev"): counts(THREE_TO_ONE)}
    )
    assert metrics[3] == shares[1]
    assert shares[1].entropy == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))


def test_without_a_generation_zero_that_varies_there_are_no_metrics() -> None:
    assert collapse_metrics_by_generation({(1, "dev"): counts(EVEN)}) == {}
    assert (
        collapse_metrics_by_generation({(0, "dev"): counts(ONE_LABEL), (1, "dev"): counts(EVEN)})
        == {}
    )
