"""MELD's CSV files as published (Poria et al. 2019, declare-lab/MELD)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_grouping import TableRow, group_dialogues
from selfemo_jobs.datasets.gold import GoldLabels
from selfemo_jobs.datasets.text_files import read_rows

COLUMNS = ("Utterance", "Speaker", "Dialogue_ID", "Utterance_ID")
LABEL = "Emotion"


def read_meld(path: Path, file: str, labels: Sequence[str], *, read_labels: bool) -> list[Dialogue]:
    """Return the dialogues of a ``*_sent_emo.csv``; see :func:`datasets.load.load_source`."""
    rows = read_rows(path, file, (*COLUMNS, LABEL) if read_labels else COLUMNS)
    gold = GoldLabels(labels, LABEL)
    utterances = []
    for row in rows:
        emotions = (gold.read(row.fields[LABEL], row.place),) if read_labels else ()
        turn = Utterance(row.text("Speaker"), row.text("Utterance"), emotions)
        dialogue = str(row.number("Dialogue_ID"))
        utterances.append(TableRow(row.place, dialogue, row.number("Utterance_ID"), turn))
    gold.check()
    return group_dialogues(utterances, "Utterance_ID")
