"""Answers and dialogues of a made-up evaluation, as the stage Evaluate stores them."""

from __future__ import annotations

import gzip
from typing import Any

import pyarrow as pa

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.json_lines import to_json_lines
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
    dialogues_path,
    predictions_prefix,
)
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.runtime.tables import encode_table
from selfemo_jobs.store import Store, join
from selfemo_jobs.store.hashing import sha256

#: Dialogues of each source, and turns of each dialogue.
DIALOGUES, TURNS = 20, 5
#: The largest rank (0 to 9) of an utterance that a generation answers right. Rank 0 is answered
#: wrong from generation 2 on.
RIGHT = (4, 5, 7, 6)


def dialogues(labels: tuple[str, ...], text: str) -> list[Dialogue]:
    """Return dialogues whose utterances have the labels in turn."""
    return [
        Dialogue(
            f"d{number}",
            tuple(
                Utterance(
                    f"Speaker {turn}",
                    f"Turn {turn} of dialogue {number}. {text}",
                    (labels[(number + turn) % len(labels)],),
                )
                for turn in range(TURNS)
            ),
        )
        for number in range(DIALOGUES)
    ]


def is_right(generation: int, number: int, turn: int) -> bool:
    """Return whether a generation answers an utterance right."""
    rank = (3 * number + turn) % 10
    return 0 < rank <= RIGHT[generation] or (rank == 0 and generation < 2)


def answers(labels: tuple[str, ...], generation: int) -> pa.Table:
    """Return the answers of a generation. A wrong answer is the label after the right one."""
    rows: list[dict[str, Any]] = []
    for number in range(DIALOGUES):
        for turn in range(TURNS):
            gold = (number + turn) % len(labels)
            wrong = not is_right(generation, number, turn)
            predicted = labels[(gold + wrong) % len(labels)]
            rows.append(
                {
                    "dialogue_id": f"d{number}",
                    "utterance": turn,
                    "gold": [labels[gold]],
                    "answer": f" {predicted}",
                    "named": [predicted],
                    "predicted": [predicted],
                    "well_formed": True,
                    "probability": 0.5 + number / 40 + turn / 1000,
                }
            )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def put_answers(
    store: Store, folder: str, source: str, labels: tuple[str, ...], generation: int, text: str
) -> list[Part]:
    """Write the answers and the dialogues of a source, and return their parts."""
    table = answers(labels, generation)
    files = {
        f"{predictions_prefix(source)}part-00000.parquet": (encode_table(table), table.num_rows),
        dialogues_path(source): (gzip.compress(to_json_lines(dialogues(labels, text))), None),
    }
    parts = []
    for path, (data, rows) in files.items():
        store.put(join(folder, path), data)
        parts.append(Part(path=path, sha256=sha256(data), size=len(data), rows=rows))
    return parts
