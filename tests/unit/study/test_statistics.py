from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from selfemo_study.statistics import (
    Confusion,
    bootstrap_draws,
    compare_promotions,
    difference,
    f1,
    f1_of_draws,
    mean_f1,
    relative_gain,
)

DIALOGUES, TURNS, LABELS = 60, 8, 4


def made_up(share: float, seed: int) -> tuple[Confusion, NDArray[np.int64], NDArray[np.int64]]:
    """Confusion matrices of a reader that is right in a share of utterances, and its answers."""
    gold = np.random.default_rng(0).integers(LABELS, size=(DIALOGUES, TURNS))
    random = np.random.default_rng(seed)
    wrong = (gold + random.integers(1, LABELS, size=gold.shape)) % LABELS
    said = np.where(random.random(gold.shape) < share, gold, wrong)
    counts = np.zeros((DIALOGUES, LABELS, LABELS), np.int64)
    rows = np.repeat(np.arange(DIALOGUES), TURNS)
    np.add.at(counts, (rows, gold.ravel(), said.ravel()), 1)
    return counts, gold, said


def test_a_draw_has_the_f1_of_its_dialogues() -> None:
    counts, gold, said = made_up(0.6, 1)
    draws = bootstrap_draws(DIALOGUES, 1, count=5)
    for number, drawn in enumerate(f1_of_draws(counts, draws)):
        rows = np.repeat(np.arange(DIALOGUES), draws.dialogues[number].astype(int))
        wanted = f1_score(gold[rows].ravel(), said[rows].ravel(), average="weighted")
        assert drawn == pytest.approx(wanted)


def test_the_mean_is_over_seeds() -> None:
    seeds = [made_up(share, i)[0] for i, share in enumerate((0.4, 0.5, 0.9))]
    found = mean_f1(seeds)
    assert found.value == pytest.approx(np.mean([f1(c) for c in seeds]))
    assert found.low < found.value < found.high


def test_seeds_share_their_dialogues() -> None:
    """Three equal seeds say no more than one: all were measured on the same test set."""
    one, three = mean_f1([made_up(0.6, 1)[0]]), mean_f1([made_up(0.6, 1)[0]] * 3)
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = mean_f1([made_up(0.6, i)[0] for i in range(3)])
    apart = mean_f1([made_up(share, i)[0] for i, share in enumerate((0.3, 0.6, 0.9))])
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


def test_the_same_model_has_no_gain() -> None:
    counts = made_up(0.6, 1)[0]
    found = relative_gain([(counts, counts)] * 2)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_pairs_are_drawn_together() -> None:
    """A small change in an otherwise equal model is seen, where unpaired draws would hide it."""
    before, gold, said = made_up(0.5, 1)
    better = said.copy()
    better[:, 0] = gold[:, 0]
    after = np.zeros_like(before)
    rows = np.repeat(np.arange(DIALOGUES), TURNS)
    np.add.at(after, (rows, gold.ravel(), better.ravel()), 1)
    found = relative_gain([(before, after)])
    assert found.value == pytest.approx(f1(after) / f1(before) - 1)
    assert 0 < found.low < found.value < found.high
    assert mean_f1([before]).high > mean_f1([after]).low  # unpaired they overlap


def test_the_gain_is_the_mean_of_the_seeds_gains() -> None:
    shares = ((0.3, 0.6), (0.5, 0.5))
    pairs = [(made_up(a, 1)[0], made_up(b, 2)[0]) for a, b in shares]
    wanted = np.mean([f1(after) / f1(before) - 1 for before, after in pairs])
    assert relative_gain(pairs).value == pytest.approx(wanted)
    wanted = np.mean([f1(after) - f1(before) for before, after in pairs])
    assert difference(pairs).value == pytest.approx(wanted)


def test_figures_are_the_same_each_time() -> None:
    pairs = [(made_up(0.4, i)[0], made_up(0.6, i + 9)[0]) for i in range(3)]
    assert relative_gain(pairs) == relative_gain(pairs)
    assert relative_gain(pairs) != relative_gain(pairs, random_seed=1)


def test_other_dialogues_are_refused() -> None:
    first, second = made_up(0.5, 1)[0], made_up(0.5, 1)[0][:-1]
    with pytest.raises(ValueError, match="same dialogues"):
        mean_f1([first, second])
    with pytest.raises(ValueError, match="same dialogues"):
        mean_f1([first, first[::-1]])


def test_nothing_is_said_relative_to_nothing() -> None:
    counts = made_up(0.0, 1)[0]
    assert f1(counts) == 0
    with pytest.raises(ValueError, match="no relative gain"):
        relative_gain([(counts, counts)])


def test_a_promotion_is_worse_only_beyond_chance() -> None:
    kept = {0: made_up(0.5, 1)[0], 2: made_up(0.8, 2)[0], 3: made_up(0.79, 3)[0]}
    kept[5] = made_up(0.3, 4)[0]
    steps = compare_promotions(kept)
    assert [(s.before, s.after) for s in steps] == [(0, 2), (2, 3), (3, 5)]
    assert [s.worse for s in steps] == [False, False, True]
    assert compare_promotions({0: kept[0]}) == []
