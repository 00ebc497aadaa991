"""What a row has come to, whatever its kind: generations, and the answers of each.

The answers themselves hold the published labels, utterance by utterance; their counts by dialogue
do not, and are all that the results are worked out from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_api.api_model import ApiModel, JsonObject
from selfemo_api.status import Outcome
from selfemo_jobs.stages.evaluate.metrics import confusions
from selfemo_jobs.stages.evaluate.predictions import PREDICTIONS, answers_of
from selfemo_study.statistics import Confusion

DEV, TEST = "dev", "test"
#: Outcome of a control: it was never promoted or rolled back.
CONTROL = "Control"
BASELINE, PROMOTED = Outcome.BASELINE.value, Outcome.PROMOTED.value

#: One row a dialogue; ``counts`` is its confusion matrix, row after row.
_COUNTS = pa.schema(
    [
        ("generation", pa.int32()),
        ("split", pa.string()),
        ("counts", pa.list_(pa.int32())),
    ]
)
_LABELLED = pa.schema([("generation", pa.int32()), ("split", pa.string()), *PREDICTIONS])


class Generation(ApiModel):
    """One generation of a row."""

    generation: int
    outcome: str
    dev: float | None = None
    """Weighted F1; None where it collapsed before it was measured."""
    test: float | None = None
    """None where it was not kept: test is read for generation 0, promoted ones and the best."""
    seconds: dict[str, float] = {}
    """By stage."""
    steps: int = 0
    """Optimizer steps."""
    kept_groups: int | None = None
    examples: int | None = None
    """Completions (or utterances, of a supervised control) in these steps."""


class CurvePoint(ApiModel):
    """Dev F1 while it trains."""

    seconds: float
    """Of work so far, without the measuring."""
    steps: int
    dev: float


class RowResult(ApiModel):
    """What a row and seed came to."""

    study: str
    row: str
    kind: str
    seed: int
    phase: str
    """As the evolution ended: Succeeded or Collapsed."""
    message: str = ""
    best: int
    """The generation that is used: chosen on dev."""
    generations: list[Generation]
    curve: list[CurvePoint] = []
    asked: JsonObject
    versions: dict[str, str]

    def generation(self, number: int) -> Generation:
        """Return a generation. Raises KeyError."""
        for found in self.generations:
            if found.generation == number:
                return found
        raise KeyError(number)

    @property
    def steps(self) -> int:
        """Optimizer steps of all generations, kept or not."""
        return sum(g.steps for g in self.generations)

    def best_after(self, last: int | None) -> int:
        """Return the generation that was the best after so many; None: at the end."""
        if last is None:
            return self.best
        return max(g for g in self.promoted if g <= last)

    @property
    def promoted(self) -> list[int]:
        """Generation 0 and those that were kept, in order."""
        return [g.generation for g in self.generations if g.outcome in (BASELINE, PROMOTED)]


@dataclass(frozen=True)
class Measured:
    """The answers of one model on one split."""

    table: pa.Table
    """:data:`selfemo_jobs.stages.evaluate.predictions.PREDICTIONS`."""
    f1: float
    seconds: float = 0.0


Answers = dict[tuple[int, str], Measured]
"""By generation and split."""


def write_predictions(path: Path, answers: Mapping[tuple[int, str], Measured]) -> None:
    """Write the answers of all generations as one Parquet file."""
    tables = []
    for (generation, split), measured in sorted(answers.items()):
        rows: dict[str, Any] = {
            "generation": pa.array([generation] * measured.table.num_rows, pa.int32()),
            "split": pa.array([split] * measured.table.num_rows, pa.string()),
        }
        for name in PREDICTIONS.names:
            rows[name] = measured.table[name]
        tables.append(pa.table(rows, schema=_LABELLED))
    pq.write_table(pa.concat_tables(tables), path, compression="zstd")


def counted(answers: Answers, labels: Sequence[str]) -> dict[tuple[int, str], Confusion]:
    """Return the confusion matrices by dialogue of answers."""
    return {
        key: confusions(answers_of(measured.table, labels), len(labels))
        for key, measured in answers.items()
    }


def write_counts(path: Path, counts: Mapping[tuple[int, str], Confusion]) -> None:
    """Write the confusion matrices by dialogue of all generations as one Parquet file."""
    rows = [
        {"generation": generation, "split": split, "counts": matrix.ravel().tolist()}
        for (generation, split), matrices in sorted(counts.items())
        for matrix in matrices
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=_COUNTS), path, compression="zstd")


def read_counts(path: Path, labels: int) -> dict[tuple[int, str], Confusion]:
    """Return the confusion matrices, of shape (dialogues, labels, labels), as they were written."""
    found: dict[tuple[int, str], list[list[int]]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault((row["generation"], row["split"]), []).append(row["counts"])
    return {
        key: np.asarray(rows, dtype=np.int64).reshape(-1, labels, labels)
        for key, rows in found.items()
    }
