"""The finished rows of a study in one Parquet file, which is kept beside the study's YAML file.

With this file the page can be written again without any training, and a study continues on another
machine. The file holds the results, and for each dialogue how often each label was answered with
each label. It holds no text, no id, and no list of labels or answers by utterance.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selfemo_api.text.files import write_atomically
from selfemo_study.finished_rows import has_stale_result
from selfemo_study.measurements import read_counts, write_counts
from selfemo_study.row_evolution import row_settings
from selfemo_study.row_requirements import Taken, is_stale, taken_from_rows
from selfemo_study.row_result import RowResult
from selfemo_study.statistics import Confusion
from selfemo_study.study_config import Row, Study, StudyError
from selfemo_study.study_folders import RowRecord, StudyFolders, exclusive_lock

_GENERATION = pa.struct(
    [
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("dev", pa.float64()),
        pa.field("test", pa.float64()),
        pa.field("seconds", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("kept_groups", pa.int64()),
        pa.field("examples", pa.int64()),
    ]
)
_CURVE_POINT = pa.struct(
    [
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("steps", pa.int64(), nullable=False),
        pa.field("dev", pa.float64(), nullable=False),
    ]
)
_COUNTS = pa.struct(
    [
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        # one confusion matrix for each dialogue, flattened row by row; rows are the gold labels
        pa.field("dialogues", pa.list_(pa.list_(pa.int32())), nullable=False),
    ]
)

#: One line for each finished row and seed.
SCHEMA = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("row", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("phase", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("best", pa.int32(), nullable=False),
        pa.field("generations", pa.list_(_GENERATION), nullable=False),
        pa.field("curve", pa.list_(_CURVE_POINT), nullable=False),
        # JSON: everything that the result follows from
        pa.field("settings", pa.string(), nullable=False),
        pa.field("versions", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("counts", pa.list_(_COUNTS), nullable=False),
    ]
)

#: A line of the table, as Python values.
Line = dict[str, Any]
#: The lines of a table by row and seed.
Lines = dict[tuple[str, int], Line]


def rows_file(study: Study, folder: Path) -> Path:
    """Return the path of a study's Parquet file of finished rows in a folder."""
    return folder / f"{study.name}-rows.parquet"


def publish(study: Study, folders: StudyFolders, file: Path) -> list[str]:
    """Write the finished rows to the Parquet file; return the names of those that ran here.

    A row that did not run here stays as it is in the file. Left out are rows that were run with
    other settings than the study's file has now, and rows that follow from another row of which the
    file gets another result. The same rows give the same bytes.

    Parameters
    ----------
    study
        The study, as its YAML file has it now.
    folders
        The folders where the rows ran.
    file
        The Parquet file to write or to replace.

    Raises
    ------
    StudyError
        If a result, or the Parquet file that is already there, cannot be read.
    """
    published = _read_lines(file) if file.is_file() else {}
    here: Lines = {}
    for row, seed in _row_seeds(study):
        folder = folders.row(row, seed)
        result = folder.read()
        if result is None or result.settings != row_settings(study, row, seed):
            continue
        if not has_stale_result(study, folders, row, result):
            counts = read_counts(folder.counts, len(study.spec["dataset"]["labels"]))
            here[row.name, seed] = line_of(result, counts)
    kept = _without_stale(study, published, here)
    lines = [kept[row.name, seed] for row, seed in _row_seeds(study) if (row.name, seed) in kept]
    names = [f"{name}-{seed}" for name, seed in here]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), content, compression="zstd")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content.getvalue())
    return names


def restore(study: Study, folders: StudyFolders, file: Path) -> list[str]:
    """Write the rows of the Parquet file as finished rows; return the names of those written.

    A row that is already finished here stays as it is. A row of the file that was run with other
    settings than the study's file has now is not restored.

    Parameters
    ----------
    study
        The study, as its YAML file has it now.
    folders
        The folders where the rows are written.
    file
        The Parquet file. If it does not exist, nothing is restored.

    Raises
    ------
    StudyError
        If the Parquet file cannot be read, or a row was begun here with other settings.
    """
    published = _read_lines(file) if file.is_file() else {}
    names = []
    for row, seed in _row_seeds(study):
        line = published.get((row.name, seed))
        if line is None or not _fits(study, row, seed, line):
            continue
        folder = folders.row(row, seed)
        with exclusive_lock(folder.path / "lock"):
            if folder.result.is_file():
                continue
            result = result_of(line)
            folder.begin(result.settings)
            taken = _taken(study, row, seed, published)
            if taken is not None:
                folder.write_record(RowRecord(rows=dict(taken)))
            write_counts(folder.counts, counts_of(line))
            folder.write(result)  # last: a row with a result is finished
        names.append(f"{row.name}-{seed}")
    return names


def line_of(result: RowResult, counts: Mapping[tuple[int, str], Confusion]) -> Line:
    """Return the table's line for a finished row and seed.

    Parameters
    ----------
    result
        The row's result.
    counts
        Its confusion matrices by generation and split, each of shape (dialogues, labels, labels).
    """
    return {
        **result.model_dump(exclude={"settings"}),
        "settings": json.dumps(result.settings, ensure_ascii=False),
        "counts": [
            {
                "generation": generation,
                "split": split,
                "dialogues": matrices.reshape(len(matrices), -1).tolist(),
            }
            for (generation, split), matrices in sorted(counts.items())
        ],
    }


def result_of(line: Line) -> RowResult:
    """Return the result that :func:`line_of` turned into a line."""
    fields = {key: value for key, value in line.items() if key not in ("settings", "counts")}
    return RowResult.model_validate({**fields, "settings": json.loads(line["settings"])})


def counts_of(line: Line) -> dict[tuple[int, str], Confusion]:
    """Return the confusion matrices that :func:`line_of` turned into a line."""
    counts: dict[tuple[int, str], Confusion] = {}
    for entry in line["counts"]:
        flat = np.asarray(entry["dialogues"], dtype=np.int64)
        labels = round(flat.shape[1] ** 0.5)
        counts[entry["generation"], entry["split"]] = flat.reshape(-1, labels, labels)
    return counts


def _read_lines(file: Path) -> Lines:
    """Return the lines of the Parquet file by row and seed. Raises StudyError."""
    try:
        table = pq.read_table(file, schema=SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise StudyError(
            f"{file} cannot be read ({error}): restore it from git, or delete it"
        ) from None
    lines = table.to_pylist(maps_as_pydicts="strict")
    return {(line["row"], line["seed"]): line for line in lines}


def _row_seeds(study: Study) -> Iterator[tuple[Row, int]]:
    for row in study.rows:
        for seed in study.seeds_of(row):
            yield row, seed


def _fits(study: Study, row: Row, seed: int, line: Line) -> bool:
    """Return whether a published line was run with the settings of the study's file."""
    return bool(json.loads(line["settings"]) == row_settings(study, row, seed))


def _without_stale(study: Study, published: Lines, here: Lines) -> Lines:
    """Return the lines to publish: those of here, and those of the file that still hold.

    Parameters
    ----------
    study
        The study, as its YAML file has it now.
    published
        The lines of the file.
    here
        The lines of the rows that ran here.
    """
    fitting = {
        (row.name, seed): published[row.name, seed]
        for row, seed in _row_seeds(study)
        if (row.name, seed) in published and _fits(study, row, seed, published[row.name, seed])
    }
    kept = {**fitting, **here}
    while True:
        stale = [
            (name, seed)
            for name, seed in kept.keys() - here.keys()
            if _is_replaced(study, study.row(name), seed, published, kept)
        ]
        if not stale:
            return kept
        for key in stale:  # a row that follows from it is stale, too
            del kept[key]


def _is_replaced(study: Study, row: Row, seed: int, then: Lines, now: Lines) -> bool:
    """Return whether a line of the file follows from another line that is replaced or left out."""
    taken_then, taken_now = (_taken(study, row, seed, lines) for lines in (then, now))
    if taken_then == taken_now:
        return False
    return is_stale(study, row, result_of(then[row.name, seed]), taken_then, taken_now)


def _taken(study: Study, row: Row, seed: int, lines: Lines) -> Taken | None:
    """Return what a row takes from the results of other rows in the lines of a file."""

    def result(other: Row) -> RowResult | None:
        line = lines.get((other.name, seed))
        return result_of(line) if line else None

    return taken_from_rows(study, row, result)
