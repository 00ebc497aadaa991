"""EmoryNLP's CSV files as published with MELD (Zahiri and Choi 2018)."""

from __future__ import annotations

import ast
from typing import Any

from selfemo_jobs.datasets.csv_files import Row, read_rows
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_grouping import TableRow, group_dialogues
from selfemo_jobs.datasets.gold import GoldLabels
from selfemo_jobs.datasets.reading import Notes, ReadOptions
from selfemo_jobs.datasets.text_files import SourceFile, one_line, shorten

COLUMNS = ("Utterance", "Speaker", "Scene_ID", "Utterance_ID", "Season", "Episode")
LABEL = "Emotion"
#: What the JSON files of EmoryNLP's own repository are.
OWN_JSON = (
    "is the JSON format of EmoryNLP's own repository, which is not supported: use the files "
    "`emorynlp_*_final.csv` of MELD's repository, or convert it to JSON Lines"
)


def read_emorynlp(file: SourceFile, options: ReadOptions, notes: Notes) -> list[Dialogue]:
    """Return the dialogues of an ``emorynlp_*_final.csv``; see :func:`datasets.load.load_source`.

    A dialogue is a scene, with the id ``s<season>e<episode>c<scene>``.
    """
    columns = (*COLUMNS, LABEL) if options.read_labels else COLUMNS
    gold = GoldLabels(options, LABEL, notes)
    utterances = []
    for row in read_rows(file, columns, notes):
        emotions = gold.turn([row.fields[LABEL]], row.place) if options.read_labels else ()
        turn = Utterance(_speaker(row), row.text("Utterance"), emotions)
        season, episode, scene = (row.number(c) for c in ("Season", "Episode", "Scene_ID"))
        dialogue = f"s{season}e{episode}c{scene}"
        utterances.append(TableRow(row.place, dialogue, row.number("Utterance_ID"), turn))
    gold.check()
    return group_dialogues(utterances, "Utterance_ID")


def is_own_json(value: Any) -> bool:
    """Return whether a JSON value is of EmoryNLP's own repository.

    Examples
    --------
    >>> is_own_json({"season_id": "s01", "episodes": [{}]})
    True
    """
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, dict) and any(
        isinstance(value.get(key), list) for key in ("episodes", "scenes")
    )


def _speaker(row: Row) -> str:
    """Return the speaker of a row; several who speak at once are joined by "and".

    The column has the names as a Python list.
    """
    value = one_line(row.fields["Speaker"])
    try:
        names = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise row.place.error(
            f"`Speaker` is `{shorten(value)}`: it must be a list of names, for example ['Monica "
            "Geller']"
        )
    return " and ".join(row.notes.clean(name, row.place) for name in names)
