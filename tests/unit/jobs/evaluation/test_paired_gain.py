"""The gain between two models: against a plain implementation with scikit-learn, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import f1_score

from selfemo_jobs.evaluation.paired_gain import (
    DifferentUtterances,
    Gain,
    gain_between,
    paired_gain,
)
from selfemo_jobs.evaluation.prediction_table import PREDICTIONS, read_set_predictions
from selfemo_jobs.evaluation.set_metrics import utterance_weights

LABELS = ("neutral", "joy", "fear", "anger")
PRIOR = {"neutral": 0.1, "joy": 0.2, "fear": 0.3, "anger": 0.4}
DIALOGUES, RESAMPLES, SEED = 12, 60, 5


def answers(right: float, seed: int, *, sets: bool) -> pa.Table:
    """Return answers about the same utterances, of which a share is right."""
    utterances = np.random.default_rng(0)
    model = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for dialogue in range(DIALOGUES):
        for utterance in range(int(utterances.integers(1, 9))):
            first = int(utterances.integers(4))
            second = int(utterances.integers(4))
            gold = [LABELS[first]]
            if sets and second != first:
                gold.append(LABELS[second])
            predicted = gold if model.random() < right else [LABELS[int(model.integers(4))]]
            rows.append(
                {
                    "dialogue_id": f"d{dialogue}",
                    "utterance": utterance,
                    "gold": gold,
                    "answer": "",
                    "named": predicted,
                    "predicted": predicted,
                    "well_formed": True,
                }
            )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def plain_f1(
    rows: list[dict[str, Any]], copies: dict[str, int], weights: list[float], *, sets: bool
) -> float:
    """Return scikit-learn's weighted F1, where each dialogue's rows are repeated."""
    repeated = [
        (row, weight)
        for row, weight in zip(rows, weights, strict=True)
        for _ in range(copies[row["dialogue_id"]])
    ]
    gold = [[label in row["gold"] for label in LABELS] for row, _ in repeated]
    predicted = [[label in row["predicted"] for label in LABELS] for row, _ in repeated]
    options: dict[str, Any] = {
        "average": "weighted",
        "zero_division": 0.0,
        "sample_weight": [weight for _, weight in repeated],
    }
    if sets:
        return float(f1_score(np.array(gold, int), np.array(predicted, int), **options))
    return float(
        f1_score([row["gold"][0] for row, _ in repeated],
                 [row["predicted"][0] for row, _ in repeated], labels=LABELS, **options)
    )  # fmt: skip


def plain_gain(first: pa.Table, second: pa.Table, *, sets: bool, prior: bool) -> list[float]:
    """Return the gain and the ends of its interval, one resample after another."""
    tables = [first.to_pylist(), second.to_pylist()]
    if prior and sets:
        gold = read_set_predictions(first, LABELS).gold
        weights = utterance_weights(gold, LABELS, PRIOR).tolist()
    elif prior:
        labels = [row["gold"][0] for row in tables[0]]
        shares = {label: labels.count(label) / len(labels) for label in LABELS}
        weights = [PRIOR[label] / shares[label] for label in labels]
    else:
        weights = [1.0] * len(tables[0])
    names = [f"d{i}" for i in range(DIALOGUES)]

    def gain(copies: dict[str, int]) -> float:
        scores = [plain_f1(table, copies, weights, sets=sets) for table in tables]
        return scores[1] - scores[0]

    generator = np.random.default_rng(SEED)
    gains = []
    for _ in range(RESAMPLES):
        drawn = generator.multinomial(DIALOGUES, [1 / DIALOGUES] * DIALOGUES)
        gains.append(gain(dict(zip(names, drawn.tolist(), strict=True))))
    return [gain(dict.fromkeys(names, 1)), *np.quantile(gains, [0.025, 0.975])]


@pytest.mark.parametrize("sets", [False, True])
@pytest.mark.parametrize("prior", [False, True])
def test_gain_equals_the_plain_implementation(sets: bool, prior: bool) -> None:
    first, second = answers(0.5, 1, sets=sets), answers(0.7, 2, sets=sets)
    gain = gain_between(
        first,
        second,
        LABELS,
        sets=sets,
        label_prior=PRIOR if prior else None,
        resamples=RESAMPLES,
        seed=SEED,
    )
    assert [gain.gain, gain.low, gain.high] == pytest.approx(
        plain_gain(first, second, sets=sets, prior=prior), abs=2e-6
    )


def test_equal_models_have_a_gain_of_exactly_0() -> None:
    table = answers(0.5, 1, sets=False)
    gain = gain_between(table, table, LABELS, sets=False, resamples=50, seed=0)
    assert gain == Gain(0.0, 0.0, 0.0)
    assert gain.low <= 0.0 <= gain.high


def test_the_interval_is_narrower_than_that_of_unpaired_draws() -> None:
    # whole dialogues are right or wrong in both models; the second fixes one utterance in each
    first, second = np.zeros((40, 2, 2)), np.zeros((40, 2, 2))
    first[:20], second[:20] = [[8, 1], [0, 9]], [[9, 0], [0, 9]]
    first[20:], second[20:] = [[0, 9], [9, 0]], [[1, 8], [9, 0]]
    gain = paired_gain(first, second, 2000, seed=0)
    assert gain.high - gain.low < 0.03
    assert gain.low > 0
    assert paired_gain(second, first, 2000, seed=0).high < 0
    assert paired_gain(first, second, 2000, seed=0) == gain
    assert paired_gain(first, second, 2000, seed=1) != gain


def test_other_utterances_are_refused() -> None:
    table = answers(0.5, 1, sets=False)
    shorter = table.slice(0, table.num_rows - 1)
    with pytest.raises(ValueError, match="different utterances"):
        gain_between(table, shorter, LABELS, sets=False, resamples=5, seed=0)


def test_other_gold_labels_are_refused() -> None:
    table = answers(0.5, 1, sets=False)
    rows = table.to_pylist()
    rows[3]["gold"] = ["joy" if rows[3]["gold"] == ["fear"] else "fear"]
    other = pa.Table.from_pylist(rows, schema=PREDICTIONS)
    with pytest.raises(DifferentUtterances, match="different utterances"):
        gain_between(table, other, LABELS, sets=False, resamples=5, seed=0)


def test_a_single_dialogue_says_nothing_about_others() -> None:
    wrong, right = np.array([[[0, 2], [0, 2]]]), np.array([[[2, 0], [0, 2]]])
    gain = paired_gain(wrong, right, 10, seed=0)
    assert gain == Gain(pytest.approx(2 / 3, abs=1e-6), -1.0, 1.0)
