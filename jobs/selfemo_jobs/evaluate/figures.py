"""The figures of one evaluation source: pure, from gold and predicted labels.

Weighted F1 is scikit-learn's ``f1_score(average="weighted")``, as in InstructERC and BiosERC. The
interval is the percentile bootstrap (Efron and Tibshirani 1993, ch. 13) over whole dialogues, since
utterances of a dialogue are not independent; that is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from selfemo_api.results import SourceScore
from selfemo_jobs.diversity import label_entropy

#: Stands for an answer that names no label.
UNPARSABLE = -1
#: Percentiles of the interval.
_LOW, _HIGH = 0.025, 0.975
#: Resampled dialogue counts held at once: 128 MiB.
_CHUNK = 1 << 24
#: Figures are given to six digits: far below any interval, and short in a termination message.
_DIGITS = 6


@dataclass(frozen=True)
class Answers:
    """What a source's utterances are and what was predicted; arrays of one length, N >= 1."""

    dialogue: NDArray[np.int64]
    """Index of the dialogue, 0 … D-1, each at least once."""
    gold: NDArray[np.int64]
    """Index of the gold label."""
    named: NDArray[np.int64]
    """Index of the label that the answer names first, or ``UNPARSABLE``."""
    mapped: NDArray[np.int64]
    """The same, with the nearest label where none is named."""


def score(
    source: str, labels: Sequence[str], answers: Answers, *, resamples: int, seed: int
) -> SourceScore:
    """Return a source's figures.

    Parameters
    ----------
    source
        Its name.
    labels
        The label set; indices in ``answers`` are into it.
    answers
        Gold and predictions.
    resamples
        Bootstrap resamples; 0 leaves the interval out.
    seed
        Of the resampling.
    """
    every = range(len(labels))
    f1: dict[str, Any] = {"labels": every, "zero_division": 0.0}
    gold, mapped = answers.gold, answers.mapped
    shares = np.bincount(mapped, minlength=len(labels)) / len(mapped)
    low, high = (
        interval(confusions(answers, len(labels)), resamples, seed) if resamples else (None, None)
    )
    # labels that the source never shows would pull the macro mean down, whatever is predicted
    shown = np.unique(gold)
    return SourceScore(
        source=source,
        utterances=len(gold),
        weighted_f1=_short(f1_score(gold, mapped, average="weighted", **f1)),
        weighted_f1_low=low,
        weighted_f1_high=high,
        strict_weighted_f1=_short(f1_score(gold, answers.named, average="weighted", **f1)),
        macro_f1=_short(f1_score(gold, mapped, average="macro", labels=shown, zero_division=0.0)),
        accuracy=_short(accuracy_score(gold, mapped)),
        unparsable=_short(np.mean(answers.named == UNPARSABLE)),
        label_entropy=_short(label_entropy(shares)),
        f1_by_label=[_short(x) for x in f1_score(gold, mapped, average=None, **f1)],
        predicted_shares=[_short(x) for x in shares],
    )


def confusions(answers: Answers, labels: int) -> NDArray[np.int64]:
    """Return a confusion matrix for each dialogue, of the mapped predictions.

    Returns
    -------
    array of shape (D, labels, labels)
        Counts; rows are gold, columns predicted.
    """
    dialogues = int(answers.dialogue.max()) + 1
    cells = (answers.dialogue * labels + answers.gold) * labels + answers.mapped
    counts = np.bincount(cells, minlength=dialogues * labels * labels)
    return counts.reshape(dialogues, labels, labels)


def weighted_f1(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted F1 of confusion matrices.

    Parameters
    ----------
    confusion
        Counts, shape (…, K, K); rows are gold.

    Returns
    -------
    array of shape (…)
        The mean of ``2 TP / (gold + predicted)`` weighted by gold; 0 for an empty matrix.
    """
    gold, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    f1 = 2 * right / np.maximum(gold + predicted, 1)
    total: NDArray[np.float64] = (f1 * gold).sum(axis=-1) / np.maximum(gold.sum(axis=-1), 1)
    return total


def interval(by_dialogue: NDArray[np.int64], resamples: int, seed: int) -> tuple[float, float]:
    """Return the bootstrap's 95 % interval of the weighted F1.

    Parameters
    ----------
    by_dialogue
        Confusion matrices, shape (D, K, K). Each resample draws D of them with replacement.
    resamples
        How many, 1 or more.
    seed
        Of the draws.
    """
    dialogues, labels, _ = by_dialogue.shape
    flat = by_dialogue.reshape(dialogues, -1).astype(np.float64)  # counts stay exact below 2**53
    random = np.random.default_rng(seed)
    found = []
    for start in range(0, resamples, max(1, _CHUNK // dialogues)):
        size = min(resamples - start, max(1, _CHUNK // dialogues))
        drawn = random.multinomial(dialogues, np.full(dialogues, 1 / dialogues), size=size)
        found.append(weighted_f1((drawn @ flat).reshape(size, labels, labels)))
    low, high = np.quantile(np.concatenate(found), [_LOW, _HIGH])
    return _short(low), _short(high)


def _short(value: Any) -> float:
    return round(float(value), _DIGITS)
