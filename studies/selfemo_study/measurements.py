"""The answers of a row's models on dev and test, and their counts by dialogue.

The answers contain the labels of the data set, utterance by utterance. The counts by dialogue do
not, and all figures of a study follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_jobs.evaluation.metrics import confusion_matrices
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
    read_predictions,
)
from selfemo_study.statistics import Confusion, f1
from selfemo_study.study_config import StudyError

#: One line for each dialogue; ``counts`` is its confusion matrix, flattened row by row.
_COUNTS = pa.schema(
    [
        ("generation", pa.int32()),
        ("split", pa.string()),
        ("counts", pa.list_(pa.int32())),
    ]
)
_PREDICTIONS = pa.schema([("generation", pa.int32()), ("split", pa.string()), *PREDICTIONS])


@dataclass(frozen=True)
class Measurement:
    """The answers of one model on one split."""

    table: pa.Table
    """One line for each labeled utterance, with the schema
    :data:`selfemo_jobs.evaluation.prediction_table.PREDICTIONS`."""
    f1: float
    """Weighted F1."""
    seconds: float = 0.0
    """Seconds that the evaluation took."""


Measurements = dict[tuple[int, str], Measurement]
"""Measurements by generation and split."""


def weighted_f1_of(table: pa.Table, labels: Sequence[str]) -> float:
    """Return the weighted F1 of answers, rounded to six digits.

    Parameters
    ----------
    table
        The answers, as the Evaluate stage writes them.
    labels
        The labels of the data set.

    Raises
    ------
    StudyError
        If an utterance has several labels. The product compares sets; the studies do not.
    """
    if any(len(gold) > 1 for gold in table["gold"].to_pylist()):
        raise StudyError("studies measure one label for each utterance, and one has several")
    return round(f1(confusion_matrices(read_predictions(table, labels), len(labels))), 6)


def count_answers(
    measurements: Measurements, labels: Sequence[str]
) -> dict[tuple[int, str], Confusion]:
    """Return the confusion matrices of answers by generation and split.

    Each array has the shape (dialogues, labels, labels).

    Parameters
    ----------
    measurements
        The answers by generation and split.
    labels
        The labels of the data set, which give the order of rows and columns.
    """
    return {
        key: confusion_matrices(read_predictions(measurement.table, labels), len(labels))
        for key, measurement in measurements.items()
    }


def write_predictions(path: Path, measurements: Mapping[tuple[int, str], Measurement]) -> None:
    """Write the answers of all generations as one Parquet file.

    Parameters
    ----------
    path
        The file to write.
    measurements
        The answers by generation and split.
    """
    tables = []
    for (generation, split), measurement in sorted(measurements.items()):
        columns: dict[str, Any] = {
            "generation": pa.array([generation] * measurement.table.num_rows, pa.int32()),
            "split": pa.array([split] * measurement.table.num_rows, pa.string()),
        }
        for name in PREDICTIONS.names:
            columns[name] = measurement.table[name]
        tables.append(pa.table(columns, schema=_PREDICTIONS))
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")


def write_counts(path: Path, counts: Mapping[tuple[int, str], Confusion]) -> None:
    """Write the confusion matrices of all generations as one Parquet file.

    Parameters
    ----------
    path
        The file to write.
    counts
        The matrices by generation and split, each of shape (dialogues, labels, labels).
    """
    lines = [
        {"generation": generation, "split": split, "counts": matrix.ravel().tolist()}
        for (generation, split), matrices in sorted(counts.items())
        for matrix in matrices
    ]
    pq.write_table(pa.Table.from_pylist(lines, schema=_COUNTS), path, compression="zstd")


def read_counts(path: Path, labels: int) -> dict[tuple[int, str], Confusion]:
    """Return the confusion matrices of a file, by generation and split.

    Each array has the shape (dialogues, labels, labels).

    Parameters
    ----------
    path
        A file that :func:`write_counts` wrote.
    labels
        The number of labels.
    """
    matrices: dict[tuple[int, str], list[list[int]]] = {}
    for line in pq.read_table(path).to_pylist():
        matrices.setdefault((line["generation"], line["split"]), []).append(line["counts"])
    return {
        key: np.asarray(lines, dtype=np.int64).reshape(-1, labels, labels)
        for key, lines in matrices.items()
    }
