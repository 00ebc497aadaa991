"""Writes predicted turns as a table for people, JSON, JSON Lines, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from rich.cells import cell_len

from selfemo_api.text.control_characters import json_text, visible
from selfemo_jobs.use_commands.prediction_rows import PredictedTurn, rounded
from selfemo_jobs.use_commands.terminal_text import cut, pad

#: The number of turns of a row group of Parquet.
_ROW_GROUP = 8192
#: The narrowest column of the text on a terminal, in cells.
_NARROWEST_TEXT = 24
#: How much of the width of a terminal the columns before the probabilities may have.
_SHARES = (1 / 6, 1 / 6, 1 / 6, 1 / 4)


class OutputFormat(StrEnum):
    """The format of predictions."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True)
class OutputLayout:
    """What is written for each turn, and how."""

    kind: OutputFormat
    """The format."""
    labels: Sequence[str]
    """The label set."""
    probabilities: bool = True
    """Whether the probability of each label is written."""

    @property
    def probability_columns(self) -> list[str]:
        """The names of the columns of a table that have the probabilities."""
        return [f"p_{label}" for label in self.labels] if self.probabilities else []

    @property
    def columns(self) -> list[str]:
        """The names of all columns of a table."""
        return ["dialogue", "turn", "speaker", "text", "labels", *self.probability_columns]

    def shares(self, turn: PredictedTurn) -> list[float]:
        """Return the probabilities of a turn, in the order of their columns."""
        if not self.probabilities:
            return []
        return [rounded((turn.probabilities or {})[label]) for label in self.labels]


class PredictionWriter(ABC):
    """Writes predicted turns to a stream. The output is complete when the writer is closed.

    Parameters
    ----------
    stream
        The stream. It stays open.
    layout
        What is written.
    """

    def __init__(self, stream: BinaryIO, layout: OutputLayout) -> None:
        self.stream = stream
        self.layout = layout
        self.begin()

    def begin(self) -> None:  # noqa: B027 - most formats have none
        """Write the beginning of the output."""

    @abstractmethod
    def write(self, turns: Sequence[PredictedTurn]) -> None:
        """Write some turns, after those that were written before."""

    def close(self) -> None:  # noqa: B027 - most formats have none
        """Write the end of the output."""


def open_writer(stream: BinaryIO, layout: OutputLayout) -> PredictionWriter:
    """Return a writer of predicted turns.

    Parameters
    ----------
    stream
        The stream. If it is a terminal, a table fits into its width, and no control characters are
        written.
    layout
        What is written.
    """
    writers: dict[OutputFormat, type[PredictionWriter]] = {
        OutputFormat.TABLE: _TableWriter,
        OutputFormat.JSON: _JsonWriter,
        OutputFormat.JSONL: _JsonLinesWriter,
        OutputFormat.CSV: _CsvWriter,
        OutputFormat.PARQUET: _ParquetWriter,
    }
    return writers[layout.kind](stream, layout)


class _JsonLinesWriter(PredictionWriter):
    def write(self, turns: Sequence[PredictedTurn]) -> None:
        self.stream.write("".join(f"{json_text(t.to_json())}\n" for t in turns).encode())


class _JsonWriter(PredictionWriter):
    """Writes one JSON document with the label set and a list of turns, a line for each."""

    def begin(self) -> None:
        labels = json_text(list(self.layout.labels))
        self.stream.write(f'{{"labels": {labels}, "predictions": ['.encode())
        self._separator = "\n"

    def write(self, turns: Sequence[PredictedTurn]) -> None:
        for turn in turns:
            self.stream.write(f"{self._separator}{json_text(turn.to_json())}".encode())
            self._separator = ",\n"

    def close(self) -> None:
        self.stream.write(b"\n]}\n")


class _CsvWriter(PredictionWriter):
    def begin(self) -> None:
        self._clean = visible if self.stream.isatty() else str
        self._write([self.layout.columns])

    def write(self, turns: Sequence[PredictedTurn]) -> None:
        self._write(
            [t.dialogue, t.turn, t.speaker, t.text, ", ".join(t.labels), *self.layout.shares(t)]
            for t in turns
        )

    def _write(self, rows: Iterable[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        clean = self._clean
        csv.writer(text, lineterminator="\n").writerows(
            [clean(value) if isinstance(value, str) else value for value in row] for row in rows
        )
        self.stream.write(text.getvalue().encode())


class _ParquetWriter(PredictionWriter):
    def begin(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        types = [pa.string(), pa.int32(), pa.string(), pa.string(), pa.list_(pa.string())]
        types += [pa.float64()] * len(self.layout.probability_columns)
        columns = zip(self.layout.columns, types, strict=True)
        self._schema = pa.schema([pa.field(*column, nullable=False) for column in columns])
        self._writer = pq.ParquetWriter(self.stream, self._schema)
        self._turns: list[PredictedTurn] = []

    def write(self, turns: Sequence[PredictedTurn]) -> None:
        self._turns.extend(turns)
        while len(self._turns) >= _ROW_GROUP:
            self._write_group()

    def close(self) -> None:
        if self._turns:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        import pyarrow as pa

        group, self._turns = self._turns[:_ROW_GROUP], self._turns[_ROW_GROUP:]
        rows = (
            (t.dialogue, t.turn, t.speaker, t.text, list(t.labels), *self.layout.shares(t))
            for t in group
        )
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._writer.write_table(pa.table(columns, schema=self._schema))


class _TableWriter(PredictionWriter):
    """Writes a table for people. The first turns decide how wide its columns are."""

    def begin(self) -> None:
        terminal = self.stream.isatty()
        self._width = shutil.get_terminal_size().columns if terminal else None
        self._widths: list[int] = []
        self._only_first = False

    def write(self, turns: Sequence[PredictedTurn]) -> None:
        if not turns:
            return
        if not self._widths:
            self._widths = self._column_widths(turns)
            if self._width is not None and self.layout.probabilities:
                others = sum(self._widths) + 2 * len(self._widths)
                self._only_first = others + _NARROWEST_TEXT > self._width
                self._widths = self._column_widths(turns)
            self._print([self._heading()])
        self._print(self._cells(turn) for turn in turns)

    def _column_widths(self, turns: Sequence[PredictedTurn]) -> list[int]:
        """Return the width of each column but the last, in cells."""
        rows = [self._heading(), *(self._cells(turn) for turn in turns)]
        return [max(map(cell_len, column)) for column in list(zip(*rows, strict=True))[:-1]]

    def _heading(self) -> list[str]:
        """Return the names of the columns. A narrow table has the first label's probability."""
        names = ["p"] if self._only_first else map(visible, self.layout.probability_columns)
        return ["dialogue", "turn", "speaker", "labels", *names, "text"]

    def _cells(self, turn: PredictedTurn) -> list[str]:
        shares = self.layout.shares(turn)
        if self._only_first and turn.labels:
            shares = [shares[list(self.layout.labels).index(turn.labels[0])]]
        texts = (turn.dialogue, str(turn.turn), turn.speaker, ", ".join(turn.labels))
        cells = [visible(text) for text in texts]
        if self._width is not None:
            limits = (max(8, int(self._width * share)) for share in _SHARES)
            cells = [cut(text, limit) for text, limit in zip(cells, limits, strict=True)]
        return [*cells, *(f"{share:.3f}" for share in shares), visible(turn.text)]

    def _print(self, rows: Iterable[Sequence[str]]) -> None:
        for *cells, text in rows:
            padded = [pad(cell, width) for cell, width in zip(cells, self._widths, strict=True)]
            line = "  ".join([*padded, text])
            if self._width is not None:
                line = cut(line, self._width)
            self.stream.write(f"{line}\n".encode())
