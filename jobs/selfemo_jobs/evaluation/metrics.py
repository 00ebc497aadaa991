"""Scores of a source that is compared by one label for each utterance. Pure.

Sources that are compared by sets of labels are scored in
:mod:`selfemo_jobs.evaluation.set_metrics`.

Weighted F1 is scikit-learn's ``f1_score(average="weighted")``, as in InstructERC and BiosERC. The
interval is the percentile bootstrap (Efron and Tibshirani 1993, chapter 13). It resamples whole
dialogues, since the utterances of a dialogue are not independent; that is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfemo_api.results import SourceScore
from selfemo_jobs.rewards.diversity import label_entropy

#: Label index of an answer that names no label.
UNPARSABLE = -1
#: Replaces a sum that is 0 in a denominator; the numerator is 0 as well.
TINY = np.finfo(np.float64).tiny
#: Quantiles of the interval.
_LOW, _HIGH = 0.025, 0.975
#: Largest number of dialogue counts that are held at once while resampling (128 MiB).
_CHUNK = 1 << 24
#: Decimal places of a score: far below any interval, and short in a termination message.
_DIGITS = 6


@dataclass(frozen=True)
class Predictions:
    """Gold and predicted labels of the N utterances of a source, N >= 1.

    All arrays have the shape (N,).
    """

    dialogue: NDArray[np.int64]
    """Index of the utterance's dialogue, from 0 to D - 1. Each index occurs at least once."""
    gold: NDArray[np.int64]
    """Index of the gold label."""
    named: NDArray[np.int64]
    """Index of the label that the answer names first, or :data:`UNPARSABLE`."""
    predicted: NDArray[np.int64]
    """Index of the label that the answer names first, or of the nearest label if it names none."""


def score_source(
    source: str,
    labels: Sequence[str],
    predictions: Predictions,
    *,
    label_prior: Mapping[str, float] | None = None,
    resamples: int,
    seed: int,
) -> SourceScore:
    """Return the scores of a source.

    Parameters
    ----------
    source
        Name of the source.
    labels
        The label set, which the indices in ``predictions`` refer to.
    predictions
        Gold and predicted labels.
    label_prior
        Share of each label where the model is used; the shares need not sum to 1. Utterances are
        weighted such that the gold labels have these shares. The scores that describe the
        predictions alone (unparsable answers, entropy, predicted shares) are not weighted. With
        None all utterances have the same weight.
    resamples
        Number of bootstrap resamples; 0 leaves the interval out.
    seed
        The seed of the resamples.

    Returns
    -------
    SourceScore
        The scores.

    Raises
    ------
    ValueError
        If the source has no label whose share is above 0.

    Examples
    --------
    >>> predictions = Predictions(
    ...     dialogue=np.array([0, 0, 1]),
    ...     gold=np.array([0, 1, 1]),
    ...     named=np.array([0, 1, UNPARSABLE]),
    ...     predicted=np.array([0, 1, 0]),
    ... )
    >>> score = score_source("dev", ["joy", "anger"], predictions, resamples=0, seed=0)
    >>> score.accuracy, score.f1_by_label, score.unparsable
    (0.666667, [0.666667, 0.666667], 0.333333)
    """
    # it takes longer to import than all else that reads stored scores, and imports SciPy and pandas
    from sklearn.metrics import accuracy_score, f1_score

    gold, predicted = predictions.gold, predictions.predicted
    support = np.bincount(gold, minlength=len(labels))
    by_label = label_weights(support, labels, label_prior)
    weights = {"sample_weight": by_label[gold]}
    f1: dict[str, Any] = {"labels": range(len(labels)), "zero_division": 0.0, **weights}
    predicted_shares = np.bincount(predicted, minlength=len(labels)) / len(predicted)
    low, high = None, None
    if resamples:
        weighted = confusion_matrices(predictions, len(labels)) * by_label[:, np.newaxis]
        low, high = bootstrap_interval(weighted, resamples, seed)
    # labels that the source does not have, or that have weight 0, would lower the macro mean
    # whatever is predicted
    present = np.flatnonzero(support * by_label)
    return SourceScore(
        source=source,
        utterances=len(gold),
        weighted_f1=rounded(f1_score(gold, predicted, average="weighted", **f1)),
        weighted_f1_low=low,
        weighted_f1_high=high,
        strict_weighted_f1=rounded(f1_score(gold, predictions.named, average="weighted", **f1)),
        macro_f1=rounded(f1_score(gold, predicted, average="macro", **f1 | {"labels": present})),
        accuracy=rounded(accuracy_score(gold, predicted, **weights)),
        unparsable=rounded(np.mean(predictions.named == UNPARSABLE)),
        label_entropy=rounded(label_entropy(predicted_shares)),
        f1_by_label=[rounded(x) for x in f1_score(gold, predicted, average=None, **f1)],
        predicted_shares=[rounded(x) for x in predicted_shares],
    )


def label_weights(
    support: NDArray[np.int64], labels: Sequence[str], label_prior: Mapping[str, float] | None
) -> NDArray[np.float64]:
    """Return the weight of an utterance of each label that gives the labels some shares.

    ``w_e = (prior_e / sum of the priors of present labels) / (support_e / N)``

    The mean weight of an utterance is 1. Labels that the source does not have are left out of the
    shares.

    Parameters
    ----------
    support
        Number of utterances of each label; shape (K,).
    labels
        The K labels.
    label_prior
        Share of each label, or None for equal weights.

    Returns
    -------
    numpy.ndarray
        Weights of shape (K,). All are 1 without a prior. Labels that are not present have 0.

    Raises
    ------
    ValueError
        If no label that is present has a share above 0.

    Notes
    -----
    The ratio of the new share to the source's own share is what Saerens et al. 2002 use to correct
    the outputs of a classifier. To use it for a score is ours.

    Examples
    --------
    >>> label_weights(np.array([3, 1]), ["neutral", "joy"], {"neutral": 0.5, "joy": 0.5}).round(3)
    array([0.667, 2.   ])
    """
    if label_prior is None:
        return np.ones(len(labels))
    shares = np.array([label_prior[label] for label in labels]) * (support > 0)
    if not shares.any():
        raise ValueError("none of the labels that have a share is in it")
    weights: NDArray[np.float64] = shares / shares.sum() * support.sum() / np.maximum(support, 1)
    return weights


def confusion_matrices(predictions: Predictions, num_labels: int) -> NDArray[np.int64]:
    """Return a confusion matrix for each dialogue.

    Parameters
    ----------
    predictions
        Gold and predicted labels.
    num_labels
        Number of labels, K.

    Returns
    -------
    numpy.ndarray
        Counts of shape (D, K, K). Rows are gold labels, columns are predicted labels.

    Examples
    --------
    >>> labels = np.array([0, 1, 1])
    >>> predictions = Predictions(np.array([0, 0, 0]), labels, labels, np.array([0, 1, 0]))
    >>> confusion_matrices(predictions, 2).tolist()
    [[[1, 0], [1, 1]]]
    """
    dialogues = int(predictions.dialogue.max()) + 1
    cells = predictions.dialogue * num_labels + predictions.gold
    cells = cells * num_labels + predictions.predicted
    counts = np.bincount(cells, minlength=dialogues * num_labels * num_labels)
    return counts.reshape(dialogues, num_labels, num_labels)


def weighted_f1(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted F1 of confusion matrices.

    It is the mean of ``2 TP / (gold + predicted)`` over the labels, weighted by the gold counts.

    Parameters
    ----------
    confusion
        Counts, or sums of weights; shape (…, K, K). Rows are gold labels.

    Returns
    -------
    numpy.ndarray
        Values from 0 to 1, of shape (…). The F1 of an empty matrix is 0.

    Examples
    --------
    >>> float(weighted_f1(np.array([[1, 0], [1, 1]])).round(3))
    0.667
    """
    gold, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    f1 = 2 * correct / np.maximum(gold + predicted, TINY)
    total: NDArray[np.float64] = (f1 * gold).sum(axis=-1) / np.maximum(gold.sum(axis=-1), TINY)
    return total


def bootstrap_interval(
    by_dialogue: NDArray[Any],
    resamples: int,
    seed: int,
    *,
    f1: Callable[[NDArray[Any]], NDArray[np.float64]] = weighted_f1,
) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the weighted F1.

    Parameters
    ----------
    by_dialogue
        Counts of each dialogue, weighted or not; shape (D, …). Each resample draws D of them with
        replacement.
    resamples
        Number of resamples, 1 or more.
    seed
        The seed of the draws.
    f1
        A function that returns the weighted F1 of counts of shape (resamples, …). By default the
        counts are confusion matrices.

    Returns
    -------
    low, high : float
        The bounds of the interval, from 0 to 1.
    """
    if len(by_dialogue) < 2:
        return 0.0, 1.0
    scores = resampled_f1(by_dialogue, resamples, seed, f1=f1)
    low, high = np.quantile(scores, [_LOW, _HIGH])
    return rounded(low), rounded(high)


def resampled_f1(
    by_dialogue: NDArray[Any],
    resamples: int,
    seed: int,
    *,
    f1: Callable[[NDArray[Any]], NDArray[np.float64]] = weighted_f1,
) -> NDArray[np.float64]:
    """Return the weighted F1 of bootstrap resamples of whole dialogues.

    Parameters
    ----------
    by_dialogue
        Counts of each dialogue, weighted or not; shape (D, …). Each resample draws D of them with
        replacement.
    resamples
        Number of resamples, 1 or more.
    seed
        The seed of the draws. For the same number of dialogues, equal seeds draw the same ones.
    f1
        A function that returns the weighted F1 of counts of shape (resamples, …).

    Returns
    -------
    numpy.ndarray
        Values from 0 to 1, of shape (resamples,).
    """
    dialogues = len(by_dialogue)
    flat = by_dialogue.reshape(dialogues, -1).astype(np.float64)  # counts stay exact below 2**53
    generator = np.random.default_rng(seed)
    scores = []
    for start in range(0, resamples, max(1, _CHUNK // dialogues)):
        size = min(resamples - start, max(1, _CHUNK // dialogues))
        drawn = generator.multinomial(dialogues, np.full(dialogues, 1 / dialogues), size=size)
        scores.append(f1((drawn @ flat).reshape(size, *by_dialogue.shape[1:])))
    return np.concatenate(scores)


def rounded(value: Any) -> float:
    """Return a score with the decimal places of all scores.

    Parameters
    ----------
    value
        A number, of any numeric type.

    Examples
    --------
    >>> rounded(2 / 3)
    0.666667
    """
    return round(float(value), _DIGITS)
