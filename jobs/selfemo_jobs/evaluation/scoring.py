"""Selects how a source is scored: by one label for each utterance, or by sets of labels. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from selfemo_api.results import SourceScore
from selfemo_api.spec import MultiLabel
from selfemo_jobs.evaluation.metrics import confusion_matrices, score_source
from selfemo_jobs.evaluation.prediction_table import (
    read_predictions,
    read_set_predictions,
)
from selfemo_jobs.evaluation.set_metrics import (
    counts_by_dialogue,
    score_source_by_sets,
    utterance_weights,
)


def compares_sets(setting: MultiLabel, gold: Iterable[Sequence[str]]) -> bool:
    """Return whether the labels of a source's utterances are compared as sets.

    Parameters
    ----------
    setting
        The field ``spec.evaluation.multiLabel``.
    gold
        The gold labels of each utterance of the source.

    Returns
    -------
    bool
        With ``Auto``, whether an utterance has several labels.

    Examples
    --------
    >>> compares_sets(MultiLabel.AUTO, [["joy"], ["joy", "surprise"]])
    True
    >>> compares_sets(MultiLabel.AUTO, [["joy"], ["surprise"]])
    False
    """
    if setting is MultiLabel.AUTO:
        return any(len(labels) > 1 for labels in gold)
    return setting is MultiLabel.ALWAYS


def compared_labels(gold: Sequence[str], *, sets: bool) -> Sequence[str]:
    """Return the gold labels of an utterance that count.

    Parameters
    ----------
    gold
        The labels of the utterance, at least one.
    sets
        Whether the source is compared by sets. Otherwise the first label alone counts.

    Returns
    -------
    sequence of str
        The labels.

    Examples
    --------
    >>> compared_labels(["joy", "surprise"], sets=False)
    ['joy']
    """
    return gold if sets else gold[:1]


def score_predictions(
    source: str,
    labels: Sequence[str],
    table: pa.Table,
    *,
    sets: bool,
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
        The label set.
    table
        A table with the columns of :data:`selfemo_jobs.evaluation.prediction_table.PREDICTIONS`,
        with at least one row.
    sets
        Whether the source is compared by sets.
    label_prior
        Share of each label where the model is used, or None; see
        :func:`selfemo_jobs.evaluation.metrics.score_source` and
        :func:`selfemo_jobs.evaluation.set_metrics.score_source_by_sets`.
    resamples
        Number of bootstrap resamples; 0 leaves the interval out.
    seed
        The seed of the resamples.

    Returns
    -------
    SourceScore
        The scores; those of sets only if the source is compared by sets.

    Raises
    ------
    ValueError
        If the label prior gives no utterance a weight above 0.
    """
    options: dict[str, Any] = {"label_prior": label_prior, "resamples": resamples, "seed": seed}
    if sets:
        set_predictions = read_set_predictions(table, labels)
        return score_source_by_sets(source, labels, set_predictions, **options)
    return score_source(source, labels, read_predictions(table, labels), **options)


def prediction_counts(
    labels: Sequence[str],
    table: pa.Table,
    *,
    sets: bool,
    label_prior: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the counts of a source's predictions, for the manifest's report.

    Parameters
    ----------
    labels
        The label set.
    table
        A table with the columns of :data:`selfemo_jobs.evaluation.prediction_table.PREDICTIONS`,
        with at least one row.
    sets
        Whether the source is compared by sets.
    label_prior
        Share of each label where the model is used, or None.

    Returns
    -------
    dict
        ``support`` has the number of utterances with each gold label. With one label for each
        utterance, ``confusion`` is the confusion matrix. With sets, ``correct`` and ``predicted``
        have the numbers of utterances by label, ``labelsPerUtterance`` is the mean number of gold
        labels, and with a label prior ``weightedShares`` are the shares of the gold labels after
        weighting.
    """
    if not sets:
        matrices = confusion_matrices(read_predictions(table, labels), len(labels))
        confusion = matrices.sum(axis=0)
        return {"confusion": confusion.tolist(), "support": confusion.sum(axis=1).tolist()}
    predictions = read_set_predictions(table, labels)
    gold = predictions.gold
    counts: dict[str, Any] = {
        "support": gold.sum(axis=0).tolist(),
        "correct": (gold & predictions.predicted).sum(axis=0).tolist(),
        "predicted": predictions.predicted.sum(axis=0).tolist(),
        "labelsPerUtterance": round(float(gold.sum(axis=1).mean()), 6),
    }
    if label_prior:
        weighted = counts_by_dialogue(predictions, utterance_weights(gold, labels, label_prior))
        shares = weighted.sum(axis=0)[1]
        counts["weightedShares"] = [round(float(s), 6) for s in shares / shares.sum()]
    return counts
