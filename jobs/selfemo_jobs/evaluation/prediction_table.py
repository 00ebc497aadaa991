"""The table of a model's answers about the labeled utterances of a source, and its arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfemo_jobs.evaluation.metrics import UNPARSABLE, Predictions
from selfemo_jobs.evaluation.set_metrics import SetPredictions

#: Result of Evaluate: one row for each labeled utterance, in the order of the source.
PREDICTIONS = pa.schema(
    [
        pa.field("dialogue_id", pa.string(), nullable=False),
        # index of the utterance within its dialogue
        pa.field("utterance", pa.int32(), nullable=False),
        # the utterance's labels in the order of the file, at least one
        pa.field("gold", pa.list_(pa.string()), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        # the labels that the answer names, in its order; empty if it names none
        pa.field("named", pa.list_(pa.string()), nullable=False),
        # the same, or the nearest label alone if the answer names none
        pa.field("predicted", pa.list_(pa.string()), nullable=False),
        pa.field("well_formed", pa.bool_(), nullable=False),
        # the model's probability of exactly this answer, from 0 to 1; null: it was not computed
        pa.field("probability", pa.float64()),
    ]
)


def predictions_prefix(source: str) -> str:
    """Return what the paths of a source's prediction tables begin with, below the stage's folder.

    Parameters
    ----------
    source
        The name of the source.

    Examples
    --------
    >>> predictions_prefix("dev")
    'predictions/dev/'
    """
    return f"predictions/{source}/"


def dialogues_path(source: str) -> str:
    """Return the path of the dialogues of a source below the stage's folder.

    Parameters
    ----------
    source
        The name of the source.

    Examples
    --------
    >>> dialogues_path("dev")
    'dialogues/dev.jsonl.gz'
    """
    return f"dialogues/{source}.jsonl.gz"


def read_predictions(table: pa.Table, labels: Sequence[str]) -> Predictions:
    """Return the first label of each gold and predicted set, as arrays of indices.

    Parameters
    ----------
    table
        A table with the columns of :data:`PREDICTIONS`, with at least one row.
    labels
        The label set.

    Returns
    -------
    Predictions
        Gold and predicted labels, in the order of the table.
    """
    index = {label: i for i, label in enumerate(labels)}

    def first(column: str) -> NDArray[np.int64]:
        sets = table[column].to_pylist()
        return np.array([index[names[0]] if names else UNPARSABLE for names in sets], np.int64)

    return Predictions(
        dialogue=_dialogue_numbers(table),
        gold=first("gold"),
        named=first("named"),
        predicted=first("predicted"),
    )


def read_set_predictions(table: pa.Table, labels: Sequence[str]) -> SetPredictions:
    """Return the gold and predicted sets of a table as boolean arrays.

    Parameters
    ----------
    table
        A table with the columns of :data:`PREDICTIONS`, with at least one row.
    labels
        The label set.

    Returns
    -------
    SetPredictions
        Gold and predicted sets, in the order of the table.
    """
    index = {label: i for i, label in enumerate(labels)}

    def membership(column: str) -> NDArray[np.bool_]:
        sets = np.zeros((table.num_rows, len(labels)), np.bool_)
        for row, names in enumerate(table[column].to_pylist()):
            sets[row, [index[name] for name in names]] = True
        return sets

    return SetPredictions(
        dialogue=_dialogue_numbers(table),
        gold=membership("gold"),
        named=membership("named"),
        predicted=membership("predicted"),
    )


def _dialogue_numbers(table: pa.Table) -> NDArray[np.int64]:
    """Return the number of each row's dialogue, in the order of their first rows."""
    numbers: dict[str, int] = {}
    ids = table["dialogue_id"].to_pylist()
    return np.array([numbers.setdefault(name, len(numbers)) for name in ids], np.int64)
