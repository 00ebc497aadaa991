"""Scores of a source that is compared by sets of labels, as scikit-learn defines them. Pure.

The labels of an utterance are a set, and so are the labels of an answer. The F1 of a label counts
the utterances whose sets contain it. The interval is the bootstrap over dialogues of
:mod:`selfemo_jobs.evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfemo_api.results import SourceScore
from selfemo_jobs.evaluation.metrics import TINY, bootstrap_interval, rounded
from selfemo_jobs.rewards.diversity import label_entropy

#: Largest difference between a label's share and its prior at which the weights are good enough.
_CLOSE = 1e-9
#: Largest number of steps of the scaling. Priors that no weights can reach take all of them.
_MAX_STEPS = 2000


@dataclass(frozen=True)
class SetPredictions:
    """Gold and predicted sets of the N utterances of a source, N >= 1, over K labels."""

    dialogue: NDArray[np.int64]
    """Shape (N,): the index of the utterance's dialogue, from 0 to D - 1. Each index occurs at
    least once."""
    gold: NDArray[np.bool_]
    """Shape (N, K): whether each label is a gold label. Each utterance has at least one."""
    named: NDArray[np.bool_]
    """Shape (N, K): whether the answer names each label."""
    predicted: NDArray[np.bool_]
    """Shape (N, K): the same, or the nearest label alone if the answer names none."""


def score_source_by_sets(
    source: str,
    labels: Sequence[str],
    predictions: SetPredictions,
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
        The label set: the K columns of ``predictions``.
    predictions
        Gold and predicted sets.
    label_prior
        Share of each label among all labels where the model is used, or None for equal weights; see
        :func:`utterance_weights`. The scores that describe the predictions alone (unparsable
        answers, labels of an answer, entropy, predicted shares) are not weighted.
    resamples
        Number of bootstrap resamples; 0 leaves the interval out.
    seed
        The seed of the resamples.

    Returns
    -------
    SourceScore
        The scores, with the figures of sets.

    Raises
    ------
    ValueError
        If no utterance has only labels whose share is above 0.

    Examples
    --------
    >>> gold = np.array([[True, True], [False, True]])
    >>> predicted = np.array([[True, False], [False, True]])
    >>> predictions = SetPredictions(np.array([0, 0]), gold, predicted, predicted)
    >>> score = score_source_by_sets("dev", ["joy", "anger"], predictions, resamples=0, seed=0)
    >>> score.f1_by_label, score.micro_f1, score.jaccard, score.accuracy
    ([1.0, 0.666667], 0.8, 0.75, 0.5)
    """
    # as in the other module, it is imported where it is used
    from sklearn.metrics import accuracy_score, f1_score, jaccard_score

    gold = predictions.gold.astype(np.int8)
    predicted, named = predictions.predicted.astype(np.int8), predictions.named.astype(np.int8)
    weights = utterance_weights(predictions.gold, labels, label_prior)
    weighted = {"sample_weight": weights}
    # labels that the source does not have, or that have weight 0, would lower the macro mean
    # whatever is predicted
    present = np.flatnonzero((predictions.gold * weights[:, np.newaxis]).any(axis=0))
    named_by_label = predictions.predicted.sum(axis=0)
    low, high = None, None
    if resamples:
        counts = counts_by_dialogue(predictions, weights)
        low, high = bootstrap_interval(counts, resamples, seed, f1=weighted_f1_of_counts)

    def f1(average: str | None, answers: NDArray[Any] = predicted, **options: Any) -> Any:
        options = {"average": average, "zero_division": 0.0, **weighted, **options}
        return f1_score(gold, answers, **options)

    return SourceScore(
        source=source,
        utterances=len(gold),
        weighted_f1=rounded(f1("weighted")),
        weighted_f1_low=low,
        weighted_f1_high=high,
        strict_weighted_f1=rounded(f1("weighted", named)),
        macro_f1=rounded(f1("macro", labels=present)),
        accuracy=rounded(accuracy_score(gold, predicted, **weighted)),
        micro_f1=rounded(f1("micro")),
        samples_f1=rounded(f1("samples")),
        jaccard=rounded(
            jaccard_score(gold, predicted, average="samples", zero_division=0.0, **weighted)
        ),
        labels_per_answer=rounded(predictions.predicted.sum(axis=1).mean()),
        unparsable=rounded(np.mean(~predictions.named.any(axis=1))),
        label_entropy=rounded(label_entropy(named_by_label)),
        f1_by_label=[rounded(value) for value in f1(None)],
        predicted_shares=[rounded(n / named_by_label.sum()) for n in named_by_label],
    )


def utterance_weights(
    gold: NDArray[np.bool_], labels: Sequence[str], label_prior: Mapping[str, float] | None
) -> NDArray[np.float64]:
    """Return the weight of each utterance that gives the labels some shares.

    The share of a label is the weight of the utterances that have it, divided by the sum of this
    weight over all labels. An utterance with two labels therefore counts for both. Of all weights
    that give the shares of the prior, those are returned that change the shares of the sets least
    (in relative entropy). If no weights give these shares, those that come closest are returned.

    Parameters
    ----------
    gold
        Shape (N, K): whether each label is a gold label. Each utterance has at least one.
    labels
        The K labels.
    label_prior
        Share of each label, or None for equal weights. The shares need not sum to 1; labels that
        the source does not have are left out of them.

    Returns
    -------
    numpy.ndarray
        Weights of shape (N,), with a mean of 1. An utterance that has a label whose share is 0 has
        the weight 0. With one label for each utterance, the weights are those of
        :func:`selfemo_jobs.evaluation.metrics.label_weights`.

    Raises
    ------
    ValueError
        If no utterance has only labels whose share is above 0.

    Notes
    -----
    Generalized iterative scaling (Darroch and Ratcliff 1972), which converges to the closest shares
    where the prior cannot be reached (Byrne 1993). Its features are the shares of the labels in a
    set, which sum to 1. To use it for a score is ours.

    Examples
    --------
    >>> gold = np.array([[True, False], [True, True], [True, True]])
    >>> weights = utterance_weights(gold, ["neutral", "joy"], {"neutral": 0.75, "joy": 0.25})
    >>> weights.round(3)
    array([2. , 0.5, 0.5])
    """
    if label_prior is None:
        return np.ones(len(gold))
    prior = np.array([label_prior[label] for label in labels])
    usable = ~(gold & (prior <= 0.0)).any(axis=1)
    if not usable.any():
        raise ValueError("no utterance has only labels whose share is above 0")
    sets, index, number = np.unique(gold[usable], axis=0, return_inverse=True, return_counts=True)
    present = sets.any(axis=0)
    target = prior[present] / prior[present].sum()
    sizes = sets.sum(axis=1)
    features = sets[:, present] / sizes[:, np.newaxis]
    mass = number * sizes / (number * sizes).sum()  # the share of all labels that a set has
    for _ in range(_MAX_STEPS):
        shares = mass @ features
        if np.abs(shares - target).max() < _CLOSE:
            break
        mass = mass * np.exp(features @ np.log(target / shares))
        mass /= mass.sum()
    weights: NDArray[np.float64] = np.zeros(len(gold))
    weights[usable] = (mass / (number * sizes))[index.ravel()]
    weights *= len(gold) / weights.sum()
    return weights


def counts_by_dialogue(
    predictions: SetPredictions, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how often each label is right, gold and predicted in each dialogue.

    Parameters
    ----------
    predictions
        Gold and predicted sets.
    weights
        Shape (N,): the weight of each utterance.

    Returns
    -------
    numpy.ndarray
        Sums of weights, of shape (D, 3, K). The second axis has the utterances whose gold set and
        predicted set both contain the label, those whose gold set does, and those whose predicted
        set does.

    Examples
    --------
    >>> gold = np.array([[True, True], [False, True]])
    >>> predicted = np.array([[True, False], [False, True]])
    >>> predictions = SetPredictions(np.array([0, 0]), gold, predicted, predicted)
    >>> counts_by_dialogue(predictions, np.ones(2)).tolist()
    [[[1.0, 1.0], [1.0, 2.0], [1.0, 1.0]]]
    """
    gold, predicted = predictions.gold, predictions.predicted
    sets = np.stack([gold & predicted, gold, predicted], axis=1)
    counts = np.zeros((int(predictions.dialogue.max()) + 1, *sets.shape[1:]))
    np.add.at(counts, predictions.dialogue, sets * weights[:, np.newaxis, np.newaxis])
    return counts


def weighted_f1_of_counts(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weighted F1 of the counts of labels.

    It is the mean of ``2 right / (gold + predicted)`` over the labels, weighted by ``gold``.

    Parameters
    ----------
    counts
        Counts of shape (…, 3, K), as :func:`counts_by_dialogue` returns them.

    Returns
    -------
    numpy.ndarray
        Values from 0 to 1, of shape (…). The F1 without any gold label is 0.

    Examples
    --------
    >>> float(weighted_f1_of_counts(np.array([[1, 1], [1, 2], [1, 1]])).round(3))
    0.778
    """
    right, gold, predicted = np.moveaxis(counts, -2, 0)
    f1 = 2 * right / np.maximum(gold + predicted, TINY)
    total: NDArray[np.float64] = (f1 * gold).sum(axis=-1) / np.maximum(gold.sum(axis=-1), TINY)
    return total
