"""Figures of expression: how often responses are read as the emotion that they were to express.

Pure. The responses of two generations to the same contexts are compared with a paired interval,
as in :mod:`selfemo_jobs.evaluation.paired_gain`. Diversity is distinct-2 (Li et al. 2016, "A
Diversity-Promoting Objective Function for Neural Conversation Models").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from selfemo_api.results import ExpressionChange, ExpressionScore
from selfemo_jobs.evaluation.metrics import TINY, bootstrap_interval, rounded
from selfemo_jobs.evaluation.paired_gain import paired_gain
from selfemo_jobs.rewards.diversity import distinct_bigrams
from selfemo_jobs.rewards.emotion_words import has_label_sign, names_any_label
from selfemo_jobs.rewards.word_units import split_words

#: The columns that say which response or human turn a row is about.
_KEY = ["dialogue_id", "utterance", "intended"]


def expression_score(
    source: str,
    labels: Sequence[str],
    responses: pa.Table,
    readings: pa.Table,
    *,
    resamples: int,
    seed: int,
) -> ExpressionScore:
    """Return the figures of a generation, without the changes from earlier ones.

    Parameters
    ----------
    source
        The name of the source that the contexts are from.
    labels
        The label set.
    responses
        The responses, with the columns of
        :data:`selfemo_jobs.evaluation.expression_tables.RESPONSES` and at least one row.
    readings
        The judge's readings of them and of human turns, with the columns of
        :data:`selfemo_jobs.evaluation.expression_tables.READINGS`.
    resamples
        The number of bootstrap resamples, each of whole dialogues. 0 leaves the interval out.
    seed
        The seed of the resamples.
    """
    read = rows_of_responses(readings)
    counts = counts_by_dialogue(read)
    low, high = None, None
    if resamples:
        low, high = bootstrap_interval(counts, resamples, seed, f1=share_of_counts)
    texts = responses["response"].to_pylist()
    words = [split_words(text) for text in texts]
    intended = responses["intended"].to_pylist()
    named = [
        names_any_label(response, [emotion]) or has_label_sign(text, [emotion])
        for text, response, emotion in zip(texts, words, intended, strict=True)
    ]
    human = shares_by_label(rows_of_humans(readings), labels)
    known = [share for share in human if share is not None]
    return ExpressionScore(
        source=source,
        responses=responses.num_rows,
        dialogues=len(counts),
        as_intended=rounded(share_of_counts(counts.sum(axis=0))),
        as_intended_low=low,
        as_intended_high=high,
        consistency=_consistency(read),
        diversity=rounded(distinct_bigrams(texts)),
        words=rounded(np.mean([len(response) for response in words])),
        named=rounded(np.mean(named)),
        well_formed=rounded(pc.mean(responses["well_formed"]).as_py()),
        human=rounded(np.mean(known)) if known else None,
        human_turns=rows_of_humans(readings).num_rows,
        as_intended_by_label=[share or 0.0 for share in shares_by_label(read, labels)],
    )


def expression_change(
    earlier: pa.Table, readings: pa.Table, generation: int, *, resamples: int, seed: int
) -> ExpressionChange | None:
    """Return the change of the share that is read as intended, with a paired interval.

    Parameters
    ----------
    earlier
        The readings of the earlier generation, with the columns of
        :data:`selfemo_jobs.evaluation.expression_tables.READINGS`.
    readings
        The readings of the later generation.
    generation
        The number of the earlier generation.
    resamples
        The number of bootstrap resamples. 0 leaves the interval out.
    seed
        The seed of the resamples.

    Returns
    -------
    ExpressionChange or None
        None if the two generations did not answer the same contexts.
    """
    first, second = rows_of_responses(earlier), rows_of_responses(readings)
    if not first.select(_KEY).equals(second.select(_KEY)):
        return None
    before, after = counts_by_dialogue(first), counts_by_dialogue(second)
    if not resamples:
        change = share_of_counts(after.sum(axis=0)) - share_of_counts(before.sum(axis=0))
        return ExpressionChange(generation=generation, change=rounded(change))
    gain = paired_gain(before, after, resamples, seed, f1=share_of_counts)
    return ExpressionChange(generation=generation, change=gain.gain, low=gain.low, high=gain.high)


def rows_of_responses(readings: pa.Table) -> pa.Table:
    """Return the rows that are about responses."""
    return readings.filter(pc.invert(readings["human"]))


def rows_of_humans(readings: pa.Table) -> pa.Table:
    """Return the rows that are about human turns."""
    return readings.filter(readings["human"])


def counts_by_dialogue(readings: pa.Table) -> NDArray[np.float64]:
    """Return how many rows of each dialogue are read as intended, and how many there are.

    Parameters
    ----------
    readings
        A table with the columns ``dialogue_id`` and ``as_intended``.

    Returns
    -------
    numpy.ndarray
        Shape (dialogues, 2), in the order in which the dialogues first occur.

    Examples
    --------
    >>> rows = {"dialogue_id": ["a", "b", "a"], "as_intended": [True, False, False]}
    >>> counts_by_dialogue(pa.table(rows)).tolist()
    [[1.0, 2.0], [0.0, 1.0]]
    """
    counts: dict[str, list[float]] = {}
    columns = (readings["dialogue_id"].to_pylist(), readings["as_intended"].to_pylist())
    for dialogue, right in zip(*columns, strict=True):
        count = counts.setdefault(dialogue, [0.0, 0.0])
        count[0] += right
        count[1] += 1
    return np.array(list(counts.values()), np.float64).reshape(-1, 2)


def share_of_counts(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of the first count in the second one.

    Parameters
    ----------
    counts
        Shape (…, 2).

    Returns
    -------
    numpy.ndarray
        Values from 0 to 1, of shape (…). The share of nothing is 0.

    Examples
    --------
    >>> share_of_counts(np.array([[1.0, 4.0], [0.0, 0.0]])).tolist()
    [0.25, 0.0]
    """
    share: NDArray[np.float64] = counts[..., 0] / np.maximum(counts[..., 1], TINY)
    return share


def shares_by_label(readings: pa.Table, labels: Sequence[str]) -> list[float | None]:
    """Return the share of rows that are read as intended, by the intended emotion.

    Parameters
    ----------
    readings
        A table with the columns ``intended`` and ``as_intended``.
    labels
        The label set.

    Returns
    -------
    list of float or None
        A share for each label. None: no row has the label.

    Examples
    --------
    >>> rows = {"intended": ["joy", "joy"], "as_intended": [True, False]}
    >>> shares_by_label(pa.table(rows), ["joy", "fear"])
    [0.5, None]
    """
    right: dict[str, list[bool]] = {label: [] for label in labels}
    columns = (readings["intended"].to_pylist(), readings["as_intended"].to_pylist())
    for intended, as_intended in zip(*columns, strict=True):
        right[intended].append(as_intended)
    return [rounded(np.mean(rows)) if rows else None for rows in right.values()]


def _consistency(readings: pa.Table) -> float:
    """Return the mean probability of the most probable emotion, over the rows that were read.

    A reading is a draw from these probabilities. So it is the share of readings that equal the
    most frequent one, over infinitely many of them.
    """
    largest = [max(values) for values in readings["probabilities"].to_pylist() if values]
    return rounded(np.mean(largest)) if largest else 0.0
