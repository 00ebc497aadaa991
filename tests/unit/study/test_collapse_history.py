"""The signs of a collapse, out of the counts that are kept of a row."""

from __future__ import annotations

import math

import numpy as np
import pytest

from selfemo_study.collapse_history import signs_of
from selfemo_study.statistics import Confusion

EVEN = [[2, 0], [0, 2]]
ONE_LABEL = [[2, 0], [2, 0]]
THREE_TO_ONE = [[2, 0], [1, 1]]


def counts(*dialogues: list[list[int]]) -> Confusion:
    return np.array(dialogues, dtype=np.int64)


def test_signs_are_those_of_the_predicted_labels() -> None:
    found = signs_of(
        {
            (0, "dev"): counts(EVEN, EVEN),
            (1, "dev"): counts(EVEN, EVEN),
            (2, "dev"): counts(ONE_LABEL, ONE_LABEL),
            (3, "dev"): counts(ONE_LABEL, EVEN),
            (3, "test"): counts(ONE_LABEL),
        }
    )
    assert sorted(found) == [1, 2, 3]
    assert (found[1].entropy, found[1].divergence) == (1.0, 0.0)
    assert found[2].entropy == 0.0
    # of (1, 0) and (1/2, 1/2), whose mean is (3/4, 1/4)
    assert found[2].divergence == pytest.approx(
        math.log2(4 / 3) / 2 + (math.log2(2 / 3) + math.log2(2)) / 4
    )
    shares = signs_of({(0, "dev"): counts(EVEN), (1, "dev"): counts(THREE_TO_ONE)})
    assert found[3] == shares[1]
    assert shares[1].entropy == pytest.approx(-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)))


def test_without_a_generation_zero_that_varies_there_are_no_signs() -> None:
    assert signs_of({(1, "dev"): counts(EVEN)}) == {}
    assert signs_of({(0, "dev"): counts(ONE_LABEL), (1, "dev"): counts(EVEN)}) == {}
