from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from selfemo_jobs.stages.evaluate.metrics import (
    UNPARSABLE,
    Answers,
    confusions,
    interval,
    label_weights,
    score,
    weighted_f1,
)

LABELS = ("neutral", "joy", "fear")


def answers(gold: list[int], named: list[int], mapped: list[int], dialogue: list[int]) -> Answers:
    return Answers(*(np.array(x, dtype=np.int64) for x in (dialogue, gold, named, mapped)))


def made_up(dialogues: int, labels: int, seed: int = 0) -> Answers:
    random = np.random.default_rng(seed)
    dialogue = np.sort(np.r_[np.arange(dialogues), random.integers(dialogues, size=9 * dialogues)])
    gold = random.integers(labels, size=len(dialogue))
    mapped = np.where(random.random(len(gold)) < 0.6, gold, random.integers(labels, size=len(gold)))
    named = np.where(random.random(len(gold)) < 0.1, UNPARSABLE, mapped)
    return Answers(dialogue, gold, named, mapped)


def test_by_hand() -> None:
    # neutral: 2 gold, 2 predicted, 1 right -> F1 1/2; joy: 2 gold, 1 predicted, 1 right -> 2/3;
    # fear: 0 gold, 1 predicted -> 0
    found = score(
        "dev",
        LABELS,
        answers([0, 0, 1, 1], [0, 2, UNPARSABLE, 1], [0, 2, 0, 1], [0, 0, 1, 1]),
        resamples=0,
        seed=0,
    )
    assert found.utterances == 4
    assert found.f1_by_label == [0.5, pytest.approx(2 / 3, abs=1e-6), 0.0]
    assert found.weighted_f1 == pytest.approx((0.5 * 2 + 2 / 3 * 2) / 4, abs=1e-6)
    assert found.macro_f1 == pytest.approx((0.5 + 2 / 3) / 2, abs=1e-6)
    assert found.accuracy == 0.5
    assert found.unparsable == 0.25
    assert found.predicted_shares == [0.5, 0.25, 0.25]
    entropy = (0.5 * np.log(2) + 0.5 * np.log(4)) / np.log(3)
    assert found.label_entropy == pytest.approx(entropy, abs=1e-6)
    assert found.weighted_f1_low is None
    assert found.weighted_f1_high is None
    # strict: neutral 2 gold, 1 predicted, 1 right -> 2/3; joy as before
    assert found.strict_weighted_f1 == pytest.approx(2 / 3, abs=1e-6)


def test_always_neutral_on_meld() -> None:
    support = [1256, 281, 50, 208, 402, 68, 345]
    gold = np.repeat(np.arange(7), support)
    nothing = np.zeros_like(gold)
    found = score(
        "test",
        list("abcdefg"),
        Answers(np.arange(len(gold)), gold, nothing, nothing),
        resamples=0,
        seed=0,
    )
    assert found.weighted_f1 == pytest.approx(0.3127, abs=5e-5)
    assert found.label_entropy == 0.0


@given(st.integers(2, 7), st.integers(1, 12), st.integers(0, 100))
def test_the_matrix_gives_what_scikit_learn_gives(labels: int, dialogues: int, seed: int) -> None:
    made = made_up(dialogues, labels, seed)
    matrix = confusions(made, labels)
    assert matrix.shape == (dialogues, labels, labels)
    assert matrix.sum() == len(made.gold)
    expected = f1_score(
        made.gold, made.mapped, average="weighted", labels=range(labels), zero_division=0.0
    )
    assert weighted_f1(matrix.sum(axis=0)) == pytest.approx(expected)
    found = score("s", [str(i) for i in range(labels)], made, resamples=20, seed=1)
    assert found.weighted_f1 == pytest.approx(expected, abs=1e-6)
    assert found.weighted_f1_low is not None
    assert found.weighted_f1_high is not None
    assert found.weighted_f1_low <= found.weighted_f1_high
    assert found.strict_weighted_f1 <= found.weighted_f1 + 1e-6 or found.unparsable > 0


def test_weighed_to_shares_by_hand() -> None:
    # neutral: 2 gold, 1 right, weighs 1/4; joy: 1 gold, 1 right, weighs 5/2; fear is not shown
    found = score(
        "dev",
        LABELS,
        answers([0, 0, 1], [0, 1, 1], [0, 1, 1], [0, 0, 1]),
        shares={"neutral": 0.1, "joy": 0.5, "fear": 0.4},
        resamples=0,
        seed=0,
    )
    neutral, joy = 2 * 0.25 / (0.5 + 0.25), 2 * 2.5 / (2.5 + 2.75)
    assert found.f1_by_label == pytest.approx([neutral, joy, 0.0], abs=1e-6)
    assert found.weighted_f1 == pytest.approx((neutral * 0.5 + joy * 2.5) / 3, abs=1e-6)
    assert found.macro_f1 == pytest.approx((neutral + joy) / 2, abs=1e-6)
    assert found.accuracy == pytest.approx(2.75 / 3, abs=1e-6)
    assert found.predicted_shares == pytest.approx([1 / 3, 2 / 3, 0], abs=1e-6)


def test_its_own_shares_change_nothing_and_copies_do_what_weights_do() -> None:
    made = made_up(12, 3, seed=5)
    own = dict(zip(LABELS, np.bincount(made.gold).tolist(), strict=True))
    plain = score("s", LABELS, made, resamples=200, seed=1)
    weighed = score("s", LABELS, made, shares=own, resamples=200, seed=1)
    assert weighed == plain
    # three of each joyful utterance are an utterance that weighs three times as much
    copies = np.repeat(np.arange(len(made.gold)), np.where(made.gold == 1, 3, 1))
    more = Answers(*(x[copies] for x in (made.dialogue, made.gold, made.named, made.mapped)))
    expected = score("s", LABELS, more, resamples=200, seed=1)
    found = score("s", LABELS, made, shares={**own, "joy": 3 * own["joy"]}, resamples=200, seed=1)
    for figure in (
        "weighted_f1",
        "weighted_f1_low",
        "weighted_f1_high",
        "strict_weighted_f1",
        "macro_f1",
        "accuracy",
        "f1_by_label",
    ):
        assert getattr(found, figure) == pytest.approx(getattr(expected, figure), abs=2e-6), figure


def test_a_label_without_a_share_is_not_in_the_macro_mean() -> None:
    made = answers([0, 0, 1, 2], [0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 1, 1])
    shares = {"neutral": 0.5, "joy": 0.5, "fear": 0.0}
    found = score("dev", LABELS, made, shares=shares, resamples=0, seed=0)
    assert found.f1_by_label[2] == 0.0
    assert found.macro_f1 == pytest.approx(sum(found.f1_by_label[:2]) / 2, abs=1e-6)


def test_shares_of_labels_that_are_not_there() -> None:
    support = np.array([2, 1, 0])
    with pytest.raises(ValueError, match="none of the labels that have a share"):
        label_weights(support, LABELS, {"neutral": 0.0, "joy": 0.0, "fear": 1.0})
    weights = label_weights(support, LABELS, {"neutral": 0.0, "joy": 0.1, "fear": 0.9})
    assert weights.tolist() == [0, 3, 0]


def slow_interval(made: Answers, labels: int, resamples: int, seed: int) -> tuple[float, float]:
    """Resample dialogue by dialogue, and let scikit-learn score each resample."""
    random = np.random.default_rng(seed)
    dialogues = int(made.dialogue.max()) + 1
    rows: list[NDArray[np.intp]] = [np.flatnonzero(made.dialogue == d) for d in range(dialogues)]
    found = []
    for _ in range(resamples):
        chosen = np.concatenate([rows[d] for d in random.integers(dialogues, size=dialogues)])
        found.append(
            f1_score(
                made.gold[chosen],
                made.mapped[chosen],
                average="weighted",
                labels=range(labels),
                zero_division=0.0,
            )
        )
    low, high = np.quantile(found, [0.025, 0.975])
    return low, high


def test_the_interval_is_the_bootstrap_over_dialogues() -> None:
    made = made_up(30, 4)
    fast = interval(confusions(made, 4), 4000, seed=3)
    slow = slow_interval(made, 4, 400, seed=4)
    assert fast == pytest.approx(slow, abs=0.01)
    # wider than over utterances where dialogues are of one kind
    sure = np.arange(30) < 15
    by_dialogue = np.zeros((30, 2, 2), dtype=np.int64)
    by_dialogue[sure] = [[10, 0], [0, 10]]
    by_dialogue[~sure] = [[0, 10], [10, 0]]
    low, high = interval(by_dialogue, 2000, seed=0)
    assert high - low > 0.3
    single = np.repeat(by_dialogue // 10, 10, axis=0)
    assert np.diff(interval(single, 2000, seed=0)) < 0.15


def test_the_interval_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = confusions(made_up(30, 4), 4)
    whole = interval(matrices, 500, seed=3)
    monkeypatch.setattr("selfemo_jobs.stages.evaluate.metrics._CHUNK", 30 * 7)
    assert interval(matrices, 500, seed=3) == whole
    assert interval(matrices, 500, seed=4) != whole
