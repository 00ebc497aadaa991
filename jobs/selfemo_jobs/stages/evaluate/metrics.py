"""The figures of one evaluation source: pure, from gold and predicted labels.

Weighted F1 is scikit-learn's ``f1_score(average="weighted")``, as in InstructERC and BiosERC. The
interval is the percentile bootstrap (Efron and Tibshirani 1993, ch. 13) over whole dialogues, since
utterances of a dialogue are not independent; that is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from selfemo_api.results import SourceScore
from selfemo_jobs.rewards.diversity import label_entropy

#: Stands for an answer that names no label.
UNPARSABLE = -1
#: In place of a sum that is 0, under a numerator that is 0 too.
_TINY = np.finfo(np.float64).tiny
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
    source: str,
    labels: Sequence[str],
    answers: Answers,
    *,
    shares: Mapping[str, float] | None = None,
    resamples: int,
    seed: int,
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
    shares
        What share each gold label shall have, of any sum: each utterance weighs accordingly. What
        is said of the predictions alone (unparsable, entropy, predicted shares) stays as it is.
        None: each weighs the same.
    resamples
        Bootstrap resamples; 0 leaves the interval out.
    seed
        Of the resampling.

    Raises
    ------
    ValueError
        If no label that has a share is in the source.
    """
    gold, mapped = answers.gold, answers.mapped
    support = np.bincount(gold, minlength=len(labels))
    by_label = label_weights(support, labels, shares)
    weigh = {"sample_weight": by_label[gold]}
    f1: dict[str, Any] = {"labels": range(len(labels)), "zero_division": 0.0, **weigh}
    predicted = np.bincount(mapped, minlength=len(labels)) / len(mapped)
    low, high = None, None
    if resamples:
        weighed = confusions(answers, len(labels)) * by_label[:, np.newaxis]
        low, high = interval(weighed, resamples, seed)
    # labels that the source never shows, or that weigh nothing in it, would pull the macro mean
    # down, whatever is predicted
    shown = np.flatnonzero(support * by_label)
    return SourceScore(
        source=source,
        utterances=len(gold),
        weighted_f1=_short(f1_score(gold, mapped, average="weighted", **f1)),
        weighted_f1_low=low,
        weighted_f1_high=high,
        strict_weighted_f1=_short(f1_score(gold, answers.named, average="weighted", **f1)),
        macro_f1=_short(f1_score(gold, mapped, average="macro", **f1 | {"labels": shown})),
        accuracy=_short(accuracy_score(gold, mapped, **weigh)),
        unparsable=_short(np.mean(answers.named == UNPARSABLE)),
        label_entropy=_short(label_entropy(predicted)),
        f1_by_label=[_short(x) for x in f1_score(gold, mapped, average=None, **f1)],
        predicted_shares=[_short(x) for x in predicted],
    )


def label_weights(
    support: NDArray[np.int64], labels: Sequence[str], shares: Mapping[str, float] | None
) -> NDArray[np.float64]:
    """Return what an utterance of each label weighs for the labels to have given shares.

    The ratio of the new share to the source's own, by which Saerens et al. 2002 correct a
    classifier's outputs; to measure with it is ours. Labels that the source never shows are left
    out of the shares. The mean weight of an utterance is 1.

    Parameters
    ----------
    support
        How many utterances of each label there are, shape (K,).
    labels, shares
        As for ``score``.

    Returns
    -------
    array of shape (K,)
        All 1 where there are no shares, 0 for labels that are not shown.

    Raises
    ------
    ValueError
        If no label that has a share is in the source.
    """
    if shares is None:
        return np.ones(len(labels))
    wanted = np.array([shares[label] for label in labels]) * (support > 0)
    if not wanted.any():
        raise ValueError("none of the labels that have a share is in it")
    weights: NDArray[np.float64] = wanted / wanted.sum() * support.sum() / np.maximum(support, 1)
    return weights


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
        Counts, or sums of weights, shape (…, K, K); rows are gold.

    Returns
    -------
    array of shape (…)
        The mean of ``2 TP / (gold + predicted)`` weighted by gold; 0 for an empty matrix.
    """
    gold, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    f1 = 2 * right / np.maximum(gold + predicted, _TINY)
    total: NDArray[np.float64] = (f1 * gold).sum(axis=-1) / np.maximum(gold.sum(axis=-1), _TINY)
    return total


def interval(by_dialogue: NDArray[Any], resamples: int, seed: int) -> tuple[float, float]:
    """Return the bootstrap's 95 % interval of the weighted F1.

    Parameters
    ----------
    by_dialogue
        Confusion matrices, weighed or not, shape (D, K, K). Each resample draws D of them with
        replacement.
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
