"""Reads the stored answers of the evaluations, and the dialogues that they are about."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from selfemo_api.stages import Stage
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
    dialogues_path,
    predictions_prefix,
)
from selfemo_jobs.runtime.manifest import Part, read_part
from selfemo_jobs.runtime.run_reader import StageRecord
from selfemo_jobs.runtime.tables import decode_table
from selfemo_jobs.store import Store, join

#: Speaker and text of each turn of a dialogue.
Turns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Answers:
    """The answers that are stored, as far as they are."""

    tables: Mapping[tuple[int, str], pa.Table] = field(default_factory=dict)
    """The answers by generation and source, with the columns of
    :data:`selfemo_jobs.evaluation.prediction_table.PREDICTIONS`."""
    dialogues: Mapping[str, Mapping[str, Turns]] = field(default_factory=dict)
    """The turns of each dialogue, by source and id of the dialogue."""


def read_answers(store: Store, records: Sequence[StageRecord]) -> Answers:
    """Return the answers of all evaluations of a run.

    Parameters
    ----------
    store
        The store that contains the run.
    records
        The finished stages of the run.

    Returns
    -------
    Answers
        Tables and dialogues that are not stored are left out.

    Raises
    ------
    BadInput
        If a part does not match its manifest, or is not a table of predictions.
    """
    tables: dict[tuple[int, str], pa.Table] = {}
    dialogues: dict[str, Mapping[str, Turns]] = {}
    for record in reversed(records):  # the last evaluation's dialogues are enough
        if record.manifest.stage is not Stage.EVALUATE:
            continue
        for score in record.manifest.scores:
            table = _table(store, record, score.source)
            if table is not None:
                tables[record.manifest.generation, score.source] = table
            if not dialogues.get(score.source):
                dialogues[score.source] = _dialogues(store, record, score.source)
    return Answers(tables, dialogues)


def _table(store: Store, record: StageRecord, source: str) -> pa.Table | None:
    """Return the predictions for a source; None if they are not stored."""
    prefix = predictions_prefix(source)
    parts = [p for p in record.manifest.parts if p.path.startswith(prefix)]
    if not parts or not all(_is_stored(store, record, part) for part in parts):
        return None
    return pa.concat_tables(
        decode_table(read_part(store, record.uri, part), record.uri, PREDICTIONS) for part in parts
    )


def _dialogues(store: Store, record: StageRecord, source: str) -> dict[str, Turns]:
    """Return the evaluated dialogues of a source; none if they are not stored."""
    part = record.manifest.find_part(dialogues_path(source))
    if part is None or not _is_stored(store, record, part):
        return {}
    text = gzip.decompress(read_part(store, record.uri, part)).decode()
    dialogues = [json.loads(line) for line in text.split("\n") if line]
    return {
        dialogue["id"]: tuple((turn["speaker"], turn["text"]) for turn in dialogue["turns"])
        for dialogue in dialogues
    }


def _is_stored(store: Store, record: StageRecord, part: Part) -> bool:
    """Return whether a part is in the storage."""
    return store.exists(join(record.uri.rsplit("/", 1)[0], part.path))
