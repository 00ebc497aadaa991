"""The scores of a source that is compared by sets: by hand, against scikit-learn, properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from selfemo_jobs.evaluation.metrics import (
    UNPARSABLE,
    Predictions,
    bootstrap_interval,
    label_weights,
    score_source,
)
from selfemo_jobs.evaluation.set_metrics import (
    SetPredictions,
    counts_by_dialogue,
    score_source_by_sets,
    utterance_weights,
    weighted_f1_of_counts,
)

LABELS = ("neutral", "joy", "fear", "anger")


def random_sets(dialogues: int, labels: int, seed: int = 0) -> SetPredictions:
    """Return predictions of which most labels are correct; about a tenth name no label."""
    generator = np.random.default_rng(seed)
    dialogue = np.sort(
        np.r_[np.arange(dialogues), generator.integers(dialogues, size=7 * dialogues)]
    )
    gold = generator.random((len(dialogue), labels)) < 0.3
    gold[np.arange(len(gold)), generator.integers(labels, size=len(gold))] = True
    named = gold ^ (generator.random(gold.shape) < 0.2)
    named[generator.random(len(gold)) < 0.1] = False
    predicted = named.copy()
    nothing = ~named.any(axis=1)
    predicted[nothing, generator.integers(labels, size=nothing.sum())] = True
    return SetPredictions(dialogue, gold, named, predicted)


def score_of(predictions: SetPredictions, **options: Any) -> Any:
    options = {"resamples": 0, "seed": 0, **options}
    labels = LABELS[: predictions.gold.shape[1]]
    return score_source_by_sets("dev", labels, predictions, **options)


def test_scores_by_hand() -> None:
    gold = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0]], bool)
    named = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
    predicted = named.copy()
    predicted[3, 3] = True  # the nearest label of an answer that names none
    score = score_of(SetPredictions(np.array([0, 0, 1, 1]), gold, named, predicted))
    # neutral: 1 of 1 and 1; joy: 2 of 2 and 2; fear: 0 of 2 and 1; anger: 0 of 0 and 1
    assert score.f1_by_label == [1.0, 1.0, 0.0, 0.0]
    assert score.weighted_f1 == pytest.approx((1 * 1 + 2 * 1 + 2 * 0) / 5)
    assert score.macro_f1 == pytest.approx(2 / 3, abs=1e-6)  # anger is not in the source
    assert score.micro_f1 == pytest.approx(2 * 3 / (5 + 5))
    assert score.samples_f1 == pytest.approx((1 + 2 / 3 + 2 / 3 + 0) / 4, abs=1e-6)
    assert score.jaccard == pytest.approx((1 + 1 / 2 + 1 / 2 + 0) / 4)
    assert score.accuracy == 1 / 4
    assert score.labels_per_answer == 5 / 4
    assert score.unparsable == 1 / 4
    assert score.predicted_shares == [0.2, 0.4, 0.2, 0.2]
    assert score.strict_weighted_f1 == score.weighted_f1
    assert (score.weighted_f1_low, score.weighted_f1_high) == (None, None)


@given(st.integers(2, 4), st.integers(1, 9), st.integers(0, 200), st.booleans())
def test_scores_are_those_of_scikit_learn(
    labels: int, dialogues: int, seed: int, weighted: bool
) -> None:
    predictions = random_sets(dialogues, labels, seed)
    gold, predicted = predictions.gold, predictions.predicted
    prior = {label: 0.1 + i for i, label in enumerate(LABELS)} if weighted else None
    score = score_of(predictions, label_prior=prior, resamples=20)
    weights = utterance_weights(gold, LABELS[:labels], prior)

    def f1(average: str, answers: NDArray[np.bool_] = predicted) -> float:
        return float(
            f1_score(gold, answers, average=average, sample_weight=weights, zero_division=0)
        )

    assert score.weighted_f1 == pytest.approx(f1("weighted"), abs=1e-6)
    assert score.micro_f1 == pytest.approx(f1("micro"), abs=1e-6)
    assert score.samples_f1 == pytest.approx(f1("samples"), abs=1e-6)
    assert score.strict_weighted_f1 == pytest.approx(f1("weighted", predictions.named), abs=1e-6)
    if gold.any(axis=0).all():
        assert score.macro_f1 == pytest.approx(f1("macro"), abs=1e-6)
    jaccard = jaccard_score(
        gold, predicted, average="samples", sample_weight=weights, zero_division=0
    )
    assert score.jaccard == pytest.approx(jaccard, abs=1e-6)
    subset = accuracy_score(gold, predicted, sample_weight=weights)
    assert score.accuracy == pytest.approx(subset, abs=1e-6)
    counts = counts_by_dialogue(predictions, weights)
    assert weighted_f1_of_counts(counts.sum(axis=0)) == pytest.approx(f1("weighted"))
    assert score.weighted_f1_low <= score.weighted_f1_high
    assert sum(score.predicted_shares) == pytest.approx(1.0, abs=1e-5)


@given(st.integers(2, 4), st.integers(1, 9), st.integers(0, 100), st.booleans())
def test_sets_of_one_label_have_the_scores_of_one_label(
    labels: int, dialogues: int, seed: int, weighted: bool
) -> None:
    """`Always` and `Never` agree where each utterance and each answer has one label."""
    generator = np.random.default_rng(seed)
    n = 5 * dialogues
    dialogue = np.sort(np.r_[np.arange(dialogues), generator.integers(dialogues, size=n)])
    gold, predicted = generator.integers(labels, size=(2, len(dialogue)))
    named = np.where(generator.random(len(gold)) < 0.2, UNPARSABLE, predicted)
    one_hot = np.vstack([np.eye(labels, dtype=bool), np.zeros((1, labels), bool)])
    sets = SetPredictions(dialogue, one_hot[gold], one_hot[named], one_hot[predicted])
    one = Predictions(dialogue, gold, named, predicted)
    prior = {label: 0.1 + i for i, label in enumerate(LABELS)} if weighted else None
    score = score_of(sets, label_prior=prior, resamples=50, seed=seed)
    options: dict[str, Any] = {"label_prior": prior, "resamples": 50, "seed": seed}
    expected = score_source("dev", LABELS[:labels], one, **options)
    figures = expected.model_dump(exclude_none=True)
    for name, value in figures.items():
        if name != "source":
            assert getattr(score, name) == pytest.approx(value, abs=2e-6), name
    assert score.micro_f1 == pytest.approx(expected.accuracy, abs=2e-6)
    assert score.labels_per_answer == 1.0


def test_the_interval_is_the_bootstrap_over_dialogues() -> None:
    predictions = random_sets(30, 4)
    weights = utterance_weights(predictions.gold, LABELS, dict(zip(LABELS, range(1, 5), strict=1)))
    counts = counts_by_dialogue(predictions, weights)
    fast = bootstrap_interval(counts, 4000, seed=3, f1=weighted_f1_of_counts)
    generator = np.random.default_rng(4)
    rows = [np.flatnonzero(predictions.dialogue == d) for d in range(30)]
    scores = []
    for _ in range(400):
        chosen = np.concatenate([rows[d] for d in generator.integers(30, size=30)])
        scores.append(
            f1_score(
                predictions.gold[chosen],
                predictions.predicted[chosen],
                average="weighted",
                sample_weight=weights[chosen],
                zero_division=0.0,
            )
        )
    assert fast == pytest.approx(np.quantile(scores, [0.025, 0.975]), abs=0.012)


def shares_of(gold: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    totals = weights @ gold
    return np.asarray(totals / totals.sum())


@given(st.integers(2, 4), st.integers(3, 12), st.integers(0, 200))
def test_the_weights_give_the_labels_the_shares_of_the_prior(
    labels: int, dialogues: int, seed: int
) -> None:
    gold = random_sets(dialogues, labels, seed).gold
    # shares that some weights reach
    hidden = np.random.default_rng(seed + 1).uniform(0.2, 2.0, len(gold))
    shares = shares_of(gold, hidden)
    prior = dict(zip(LABELS, shares.tolist(), strict=False))
    weights = utterance_weights(gold, LABELS[:labels], prior)
    assert shares_of(gold, weights) == pytest.approx(shares, abs=1e-4)
    assert weights.mean() == pytest.approx(1.0)
    assert (weights >= 0).all()


def test_with_one_label_the_weights_are_those_of_the_label() -> None:
    gold = np.array([0, 0, 1, 3, 0])
    prior = {"neutral": 0.2, "joy": 0.3, "fear": 0.4, "anger": 0.1}
    expected = label_weights(np.bincount(gold, minlength=4), LABELS, prior)[gold]
    weights = utterance_weights(np.eye(4, dtype=bool)[gold], LABELS, prior)
    assert weights == pytest.approx(expected)


def test_an_utterance_with_a_label_of_share_0_has_no_weight() -> None:
    gold = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]], bool)
    prior = {"neutral": 0.0, "joy": 0.5, "fear": 0.5, "anger": 0.0}
    assert utterance_weights(gold, LABELS, prior).tolist() == [0.0, 0.0, 3.0]
    with pytest.raises(ValueError, match="only labels whose share is above 0"):
        utterance_weights(gold[:2], LABELS, prior)


def test_a_prior_that_no_weights_reach_is_approached() -> None:
    # joy is always there together with neutral: its share is at most a half
    gold = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]], bool)
    weights = utterance_weights(gold, LABELS, dict(zip(LABELS, (0.2, 0.8, 0, 0), strict=True)))
    assert shares_of(gold, weights)[:2] == pytest.approx([0.5, 0.5], abs=0.01)
    assert np.isfinite(weights).all()
