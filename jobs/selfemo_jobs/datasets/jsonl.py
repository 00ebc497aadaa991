"""Dialogues as JSON Lines: this project's own format, a dialogue in each line.

::

    {"id": "d1", "turns": [{"speaker": "Ann", "text": "We won!", "labels": ["joy"]}, …]}

``id`` is unique in the file. ``turns`` has at least one turn. ``labels`` is optional and has at
least one emotion; the first one counts in the weighted F1. Other keys are ignored. The file is
UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.documents import Node, parse
from selfemo_jobs.datasets.gold import GoldLabels
from selfemo_jobs.datasets.text_files import Place, read_text

LABEL = "labels"


def read_jsonl(
    path: Path, file: str, labels: Sequence[str], *, read_labels: bool
) -> list[Dialogue]:
    """Return the dialogues of a JSON Lines file; see :func:`datasets.load.load_source`."""
    gold = GoldLabels(labels, LABEL) if read_labels else None
    line_of: dict[str, int] = {}
    dialogues = []
    for number, line in enumerate(read_text(path, file, fix_typography=False).split("\n"), start=1):
        if not line.strip():
            continue
        dialogue = _dialogue(parse(line, Place(file, number)), gold)
        first = line_of.setdefault(dialogue.id, number)
        if first != number:
            raise Place(file, number).error(
                f"`id` {dialogue.id} is there twice (first: line {first})"
            )
        dialogues.append(dialogue)
    if gold:
        gold.check()
    return dialogues


def _dialogue(node: Node, gold: GoldLabels | None) -> Dialogue:
    turns = node.get("turns")
    items = turns.items()
    if not items:
        raise turns.error("is empty: a dialogue has at least one turn")
    return Dialogue(node.get("id").text(), tuple(_turn(item, gold) for item in items))


def _turn(node: Node, gold: GoldLabels | None) -> Utterance:
    speaker, text = node.get("speaker").text(), node.get("text").text()
    return Utterance(speaker, text, _labels(node, gold) if gold else ())


def _labels(node: Node, gold: GoldLabels) -> tuple[str, ...]:
    labels = node.find(LABEL)
    if labels is None:
        return ()
    emotions = tuple(gold.read(item.text(), item.place) for item in labels.items())
    if len(set(emotions)) != len(emotions):
        raise labels.error("has an emotion twice")
    return emotions
