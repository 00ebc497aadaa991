"""The scores of one label for each utterance, as the stage computed them before sets were compared.

Tests compare the stage with this copy. It must not be changed together with the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from selfemo_api.results import SourceScore
from selfemo_jobs.rewards.diversity import label_entropy

Indices = NDArray[np.int64]


def reference_score(
    labels: Sequence[str],
    dialogue: Indices,
    gold: Indices,
    named: Indices,
    predicted: Indices,
    prior: Mapping[str, float] | None,
    resamples: int,
    seed: int,
) -> SourceScore:
    """Return the scores of a source. An index of -1 in `named` is an answer without a label."""
    k = len(labels)
    support = np.bincount(gold, minlength=k)
    by_label = np.ones(k)
    if prior is not None:
        wanted = np.array([prior[label] for label in labels]) * (support > 0)
        by_label = wanted / wanted.sum() * support.sum() / np.maximum(support, 1)
    weights = {"sample_weight": by_label[gold]}
    options: dict[str, Any] = {"labels": range(k), "zero_division": 0.0, **weights}
    shares = np.bincount(predicted, minlength=k) / len(predicted)
    present = np.flatnonzero(support * by_label)
    low, high = interval(dialogue, gold, predicted, by_label, resamples, seed)

    def cut(value: Any) -> float:
        return round(float(value), 6)

    return SourceScore(
        source="dev",
        utterances=len(gold),
        weighted_f1=cut(f1_score(gold, predicted, average="weighted", **options)),
        weighted_f1_low=low,
        weighted_f1_high=high,
        strict_weighted_f1=cut(f1_score(gold, named, average="weighted", **options)),
        macro_f1=cut(f1_score(gold, predicted, average="macro", **options | {"labels": present})),
        accuracy=cut(accuracy_score(gold, predicted, **weights)),
        unparsable=cut(np.mean(named == -1)),
        label_entropy=cut(label_entropy(shares)),
        f1_by_label=[cut(x) for x in f1_score(gold, predicted, average=None, **options)],
        predicted_shares=[cut(x) for x in shares],
    )


def interval(
    dialogue: Indices,
    gold: Indices,
    predicted: Indices,
    by_label: NDArray[np.float64],
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Return the 95% interval of the weighted F1, by the bootstrap over dialogues."""
    k, dialogues = len(by_label), int(dialogue.max()) + 1
    cells = (dialogue * k + gold) * k + predicted
    counts = np.bincount(cells, minlength=dialogues * k * k).reshape(dialogues, k, k)
    flat = (counts * by_label[:, np.newaxis]).reshape(dialogues, -1).astype(np.float64)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(dialogues, np.full(dialogues, 1 / dialogues), size=resamples)
    matrices = (drawn @ flat).reshape(resamples, k, k)
    tiny = np.finfo(np.float64).tiny
    of_gold, of_predicted = matrices.sum(axis=-1), matrices.sum(axis=-2)
    right = np.diagonal(matrices, axis1=-2, axis2=-1)
    f1 = 2 * right / np.maximum(of_gold + of_predicted, tiny)
    scores = (f1 * of_gold).sum(axis=-1) / np.maximum(of_gold.sum(axis=-1), tiny)
    low, high = np.quantile(scores, [0.025, 0.975])
    return round(float(low), 6), round(float(high), 6)
