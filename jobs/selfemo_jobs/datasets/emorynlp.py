"""EmoryNLP's CSV files as published with MELD (Zahiri and Choi 2018)."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_grouping import TableRow, group_dialogues
from selfemo_jobs.datasets.gold import GoldLabels
from selfemo_jobs.datasets.text_files import Row, one_line, read_rows, shorten

COLUMNS = ("Utterance", "Speaker", "Scene_ID", "Utterance_ID", "Season", "Episode")
LABEL = "Emotion"


def read_emorynlp(
    path: Path, file: str, labels: Sequence[str], *, read_labels: bool
) -> list[Dialogue]:
    """Return the dialogues of an ``emorynlp_*_final.csv``; see :func:`datasets.load.load_source`.

    A dialogue is a scene, with the id ``s<season>e<episode>c<scene>``.
    """
    rows = read_rows(path, file, (*COLUMNS, LABEL) if read_labels else COLUMNS)
    gold = GoldLabels(labels, LABEL)
    utterances = []
    for row in rows:
        emotions = (gold.read(row.fields[LABEL], row.place),) if read_labels else ()
        turn = Utterance(_speaker(row), row.text("Utterance"), emotions)
        season, episode, scene = (row.number(c) for c in ("Season", "Episode", "Scene_ID"))
        dialogue = f"s{season}e{episode}c{scene}"
        utterances.append(TableRow(row.place, dialogue, row.number("Utterance_ID"), turn))
    gold.check()
    return group_dialogues(utterances, "Utterance_ID")


def _speaker(row: Row) -> str:
    """Return the speaker of a row; several who speak at once are joined by "and".

    The column has the names as a Python list.
    """
    value = row.text("Speaker")
    try:
        names = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise row.place.error(
            f"`Speaker` is `{shorten(value)}`: it must be a list of names, as ['Monica Geller']"
        )
    return " and ".join(one_line(name) for name in names)
