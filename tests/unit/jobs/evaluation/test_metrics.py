"""The scores of a source: by hand, against scikit-learn, and properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from selfemo_jobs.evaluation.metrics import (
    UNPARSABLE,
    Predictions,
    bootstrap_interval,
    confusion_matrices,
    label_weights,
    score_source,
    weighted_f1,
)

LABELS = ("neutral", "joy", "fear")


def make_predictions(
    gold: list[int], named: list[int], predicted: list[int], dialogue: list[int]
) -> Predictions:
    return Predictions(*(np.array(x, dtype=np.int64) for x in (dialogue, gold, named, predicted)))


def random_predictions(dialogues: int, labels: int, seed: int = 0) -> Predictions:
    """Return predictions of which about two thirds are correct."""
    generator = np.random.default_rng(seed)
    dialogue = np.sort(
        np.r_[np.arange(dialogues), generator.integers(dialogues, size=9 * dialogues)]
    )
    gold = generator.integers(labels, size=len(dialogue))
    predicted = np.where(
        generator.random(len(gold)) < 0.6, gold, generator.integers(labels, size=len(gold))
    )
    named = np.where(generator.random(len(gold)) < 0.1, UNPARSABLE, predicted)
    return Predictions(dialogue, gold, named, predicted)


def test_scores_by_hand() -> None:
    # neutral: 2 gold, 2 predicted, 1 right -> F1 1/2; joy: 2 gold, 1 predicted, 1 right -> 2/3;
    # fear: 0 gold, 1 predicted -> 0
    score = score_source(
        "dev",
        LABELS,
        make_predictions([0, 0, 1, 1], [0, 2, UNPARSABLE, 1], [0, 2, 0, 1], [0, 0, 1, 1]),
        resamples=0,
        seed=0,
    )
    assert score.utterances == 4
    assert score.f1_by_label == [0.5, pytest.approx(2 / 3, abs=1e-6), 0.0]
    assert score.weighted_f1 == pytest.approx((0.5 * 2 + 2 / 3 * 2) / 4, abs=1e-6)
    assert score.macro_f1 == pytest.approx((0.5 + 2 / 3) / 2, abs=1e-6)
    assert score.accuracy == 0.5
    assert score.unparsable == 0.25
    assert score.predicted_shares == [0.5, 0.25, 0.25]
    entropy = (0.5 * np.log(2) + 0.5 * np.log(4)) / np.log(3)
    assert score.label_entropy == pytest.approx(entropy, abs=1e-6)
    assert score.weighted_f1_low is None
    assert score.weighted_f1_high is None
    # strict: neutral 2 gold, 1 predicted, 1 right -> 2/3; joy as before
    assert score.strict_weighted_f1 == pytest.approx(2 / 3, abs=1e-6)


def test_always_neutral_has_the_known_f1_on_meld() -> None:
    support = [1256, 281, 50, 208, 402, 68, 345]
    gold = np.repeat(np.arange(7), support)
    nothing = np.zeros_like(gold)
    score = score_source(
        "test",
        list("abcdefg"),
        Predictions(np.arange(len(gold)), gold, nothing, nothing),
        resamples=0,
        seed=0,
    )
    assert score.weighted_f1 == pytest.approx(0.3127, abs=5e-5)
    assert score.label_entropy == 0.0


@given(st.integers(2, 7), st.integers(1, 12), st.integers(0, 100))
def test_the_f1_of_the_matrix_equals_scikit_learns(labels: int, dialogues: int, seed: int) -> None:
    predictions = random_predictions(dialogues, labels, seed)
    matrix = confusion_matrices(predictions, labels)
    assert matrix.shape == (dialogues, labels, labels)
    assert matrix.sum() == len(predictions.gold)
    expected = f1_score(
        predictions.gold,
        predictions.predicted,
        average="weighted",
        labels=range(labels),
        zero_division=0.0,
    )
    assert weighted_f1(matrix.sum(axis=0)) == pytest.approx(expected)
    score = score_source("s", [str(i) for i in range(labels)], predictions, resamples=20, seed=1)
    assert score.weighted_f1 == pytest.approx(expected, abs=1e-6)
    assert score.weighted_f1_low is not None
    assert score.weighted_f1_high is not None
    assert score.weighted_f1_low <= score.weighted_f1_high
    assert score.strict_weighted_f1 <= score.weighted_f1 + 1e-6 or score.unparsable > 0


def test_scores_weighted_to_a_label_prior_by_hand() -> None:
    # neutral: 2 gold, 1 right, weight 1/4; joy: 1 gold, 1 right, weight 5/2; fear is absent
    score = score_source(
        "dev",
        LABELS,
        make_predictions([0, 0, 1], [0, 1, 1], [0, 1, 1], [0, 0, 1]),
        label_prior={"neutral": 0.1, "joy": 0.5, "fear": 0.4},
        resamples=0,
        seed=0,
    )
    neutral, joy = 2 * 0.25 / (0.5 + 0.25), 2 * 2.5 / (2.5 + 2.75)
    assert score.f1_by_label == pytest.approx([neutral, joy, 0.0], abs=1e-6)
    assert score.weighted_f1 == pytest.approx((neutral * 0.5 + joy * 2.5) / 3, abs=1e-6)
    assert score.macro_f1 == pytest.approx((neutral + joy) / 2, abs=1e-6)
    assert score.accuracy == pytest.approx(2.75 / 3, abs=1e-6)
    assert score.predicted_shares == pytest.approx([1 / 3, 2 / 3, 0], abs=1e-6)


def test_the_sources_own_shares_change_nothing_and_weights_act_like_copies() -> None:
    predictions = random_predictions(12, 3, seed=5)
    own = dict(zip(LABELS, np.bincount(predictions.gold).tolist(), strict=True))
    plain = score_source("s", LABELS, predictions, resamples=200, seed=1)
    weighted = score_source("s", LABELS, predictions, label_prior=own, resamples=200, seed=1)
    assert weighted == plain
    # three copies of each utterance with joy have the effect of a weight of three
    copies = np.repeat(np.arange(len(predictions.gold)), np.where(predictions.gold == 1, 3, 1))
    more = Predictions(
        *(
            x[copies]
            for x in (
                predictions.dialogue,
                predictions.gold,
                predictions.named,
                predictions.predicted,
            )
        )
    )
    expected = score_source("s", LABELS, more, resamples=200, seed=1)
    score = score_source(
        "s", LABELS, predictions, label_prior={**own, "joy": 3 * own["joy"]}, resamples=200, seed=1
    )
    for figure in (
        "weighted_f1",
        "weighted_f1_low",
        "weighted_f1_high",
        "strict_weighted_f1",
        "macro_f1",
        "accuracy",
        "f1_by_label",
    ):
        assert getattr(score, figure) == pytest.approx(getattr(expected, figure), abs=2e-6), figure


def test_a_label_with_a_share_of_0_is_not_in_the_macro_mean() -> None:
    predictions = make_predictions([0, 0, 1, 2], [0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 1, 1])
    prior = {"neutral": 0.5, "joy": 0.5, "fear": 0.0}
    score = score_source("dev", LABELS, predictions, label_prior=prior, resamples=0, seed=0)
    assert score.f1_by_label[2] == 0.0
    assert score.macro_f1 == pytest.approx(sum(score.f1_by_label[:2]) / 2, abs=1e-6)


def test_labels_that_are_absent_have_no_weight() -> None:
    support = np.array([2, 1, 0])
    with pytest.raises(ValueError, match="none of the labels that have a share"):
        label_weights(support, LABELS, {"neutral": 0.0, "joy": 0.0, "fear": 1.0})
    weights = label_weights(support, LABELS, {"neutral": 0.0, "joy": 0.1, "fear": 0.9})
    assert weights.tolist() == [0, 3, 0]


def slow_interval(
    predictions: Predictions, labels: int, resamples: int, seed: int
) -> tuple[float, float]:
    """Return the interval of a plain bootstrap, with each resample scored by scikit-learn."""
    generator = np.random.default_rng(seed)
    dialogues = int(predictions.dialogue.max()) + 1
    rows: list[NDArray[np.intp]] = [
        np.flatnonzero(predictions.dialogue == d) for d in range(dialogues)
    ]
    scores = []
    for _ in range(resamples):
        chosen = np.concatenate([rows[d] for d in generator.integers(dialogues, size=dialogues)])
        scores.append(
            f1_score(
                predictions.gold[chosen],
                predictions.predicted[chosen],
                average="weighted",
                labels=range(labels),
                zero_division=0.0,
            )
        )
    low, high = np.quantile(scores, [0.025, 0.975])
    return low, high


def test_the_interval_is_the_bootstrap_over_dialogues() -> None:
    predictions = random_predictions(30, 4)
    fast = bootstrap_interval(confusion_matrices(predictions, 4), 4000, seed=3)
    slow = slow_interval(predictions, 4, 400, seed=4)
    assert fast == pytest.approx(slow, abs=0.01)
    # wider than over utterances if each dialogue is either all right or all wrong
    right = np.arange(30) < 15
    by_dialogue = np.zeros((30, 2, 2), dtype=np.int64)
    by_dialogue[right] = [[10, 0], [0, 10]]
    by_dialogue[~right] = [[0, 10], [10, 0]]
    low, high = bootstrap_interval(by_dialogue, 2000, seed=0)
    assert high - low > 0.3
    single = np.repeat(by_dialogue // 10, 10, axis=0)
    assert np.diff(bootstrap_interval(single, 2000, seed=0)) < 0.15


def test_the_interval_of_a_single_dialogue_is_the_whole_range() -> None:
    matrices = confusion_matrices(random_predictions(2, 4), 4)
    assert bootstrap_interval(matrices[:1], 10, seed=0) == (0.0, 1.0)
    assert bootstrap_interval(matrices, 10, seed=0) != (0.0, 1.0)


def test_the_size_of_chunks_does_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = confusion_matrices(random_predictions(30, 4), 4)
    whole = bootstrap_interval(matrices, 500, seed=3)
    monkeypatch.setattr("selfemo_jobs.evaluation.metrics._CHUNK", 30 * 7)
    assert bootstrap_interval(matrices, 500, seed=3) == whole
    assert bootstrap_interval(matrices, 500, seed=4) != whole
