"""MELD's CSV files as published (Poria et al. 2019, declare-lab/MELD)."""

from __future__ import annotations

from selfemo_jobs.datasets.csv_files import read_rows
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_grouping import TableRow, group_dialogues
from selfemo_jobs.datasets.gold import GoldLabels
from selfemo_jobs.datasets.reading import Notes, ReadOptions
from selfemo_jobs.datasets.text_files import SourceFile

COLUMNS = ("Utterance", "Speaker", "Dialogue_ID", "Utterance_ID")
LABEL = "Emotion"


def read_meld(file: SourceFile, options: ReadOptions, notes: Notes) -> list[Dialogue]:
    """Return the dialogues of a ``*_sent_emo.csv``; see :func:`datasets.load.load_source`."""
    columns = (*COLUMNS, LABEL) if options.read_labels else COLUMNS
    gold = GoldLabels(options, LABEL, notes)
    utterances = []
    for row in read_rows(file, columns, notes):
        emotions = gold.turn([row.fields[LABEL]], row.place) if options.read_labels else ()
        turn = Utterance(row.text("Speaker"), row.text("Utterance"), emotions)
        dialogue = str(row.number("Dialogue_ID"))
        utterances.append(TableRow(row.place, dialogue, row.number("Utterance_ID"), turn))
    gold.check()
    return group_dialogues(utterances, "Utterance_ID")
