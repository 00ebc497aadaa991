"""The measures that show a collapse."""

from __future__ import annotations

from itertools import combinations
from math import log

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from selfemo_jobs.rewards.diversity import (
    BIGRAM_HASH,
    bigram_hashes,
    count_bigrams,
    distinct_bigrams,
    distinct_bigrams_of,
    label_entropy,
)

counts = st.lists(st.integers(0, 1000), min_size=2, max_size=8)


def test_entropy_by_hand() -> None:
    assert label_entropy([5, 5, 5]) == pytest.approx(1.0)
    assert label_entropy([9, 0, 0]) == 0.0
    assert label_entropy([1, 1, 0, 0]) == pytest.approx(0.5)
    assert label_entropy([3, 1]) == pytest.approx(-(0.75 * log(0.75) + 0.25 * log(0.25)) / log(2))
    assert label_entropy([0, 0]) == label_entropy([4]) == 0.0
    # labels with a count of 0 count in the denominator; shares may be given instead of counts
    assert label_entropy([5, 5]) == 1.0
    assert label_entropy([5, 0, 0, 0, 0, 0, 0]) == label_entropy([0] * 7) == 0.0
    two_of_four = -(0.75 * log(0.75) + 0.25 * log(0.25)) / log(4)
    assert label_entropy([3, 1, 0, 0]) == pytest.approx(two_of_four)
    assert label_entropy(np.full(7, 1 / 7)) == pytest.approx(1.0)
    assert label_entropy(np.array([1.0, 0.0])) == 0.0


@given(counts)
def test_entropy_is_between_0_and_1_and_does_not_depend_on_the_total(by_label: list[int]) -> None:
    assert 0.0 <= label_entropy(by_label) <= 1.0 + 1e-12
    assert label_entropy([3 * c for c in by_label]) == pytest.approx(label_entropy(by_label))


def test_distinct_bigrams_by_hand() -> None:
    assert distinct_bigrams(["a b c", "A b d"]) == pytest.approx(3 / 4)  # "a b" occurs twice
    assert distinct_bigrams(["no no no no"]) == pytest.approx(1 / 3)
    assert distinct_bigrams(["one", ""]) == 0.0


@given(st.lists(st.text("abc ", max_size=12), max_size=8), st.data())
def test_distinct_bigrams_of_a_subset_are_the_mean_over_all_subsets(
    texts: list[str], data: st.DataObject
) -> None:
    total = count_bigrams(texts)
    assume(0 < total <= 12)
    pairs = data.draw(st.integers(1, total))
    hashes = [each for text in texts for each in bigram_hashes([text])]
    drawn = [len(set(subset)) / pairs for subset in combinations(hashes, pairs)]
    assert distinct_bigrams_of(texts, pairs) == pytest.approx(sum(drawn) / len(drawn))
    assert distinct_bigrams_of(texts, total) == pytest.approx(distinct_bigrams(texts))


def test_longer_texts_are_compared_on_equally_many_bigrams() -> None:
    short = ["a b c", "d e f"]
    long = ["a b c d e f", "a b c g h i"]
    assert distinct_bigrams(long) < distinct_bigrams(short)
    assert distinct_bigrams_of(long, count_bigrams(short)) > distinct_bigrams(long)
    for pairs in (0, 5):
        with pytest.raises(ValueError, match="there are 4 word pairs"):
            distinct_bigrams_of(short, pairs)


def test_hashes_of_several_texts_have_the_distinct_bigrams_of_all() -> None:
    texts = ["a b c", "A b d", "我很开心", "我很难过！", "", "one"]
    hashes = [each for text in texts for each in bigram_hashes([text])]
    assert {len(each) for each in hashes} == {BIGRAM_HASH}
    assert len(set(hashes)) / len(hashes) == distinct_bigrams(texts)


def test_distinct_bigrams_of_other_scripts() -> None:
    assert distinct_bigrams(["我很开心", "我很难过！"]) == pytest.approx(
        5 / 6
    )  # "我很" occurs twice
    assert distinct_bigrams(["好好好好"]) == pytest.approx(1 / 3)
    assert distinct_bigrams(["ดีใจ", "ดีใจ"]) == pytest.approx(2 / 4)
    assert distinct_bigrams(["أنا سعيد؟", "أنا سعيد!"]) == pytest.approx(1 / 2)
    assert distinct_bigrams(["好", "？？？"]) == 0.0
