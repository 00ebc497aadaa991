"""Small labeled dialogues for tests of the warm start: the label follows from one word."""

from __future__ import annotations

import json
from pathlib import Path

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance

LABELS = ("joy", "anger")
#: The label follows from one word: something to learn.
WORDS = {"joy": "yes", "anger": "no"}


def dialogues(count: int) -> list[Dialogue]:
    """Return dialogues of four turns each."""
    result = []
    for i in range(count):
        labels = [LABELS[(i * 7 + turn * turn) % 2] for turn in range(4)]
        turns = [
            Utterance("AB"[turn % 2], f"oh {WORDS[label]} well", (label,))
            for turn, label in enumerate(labels)
        ]
        result.append(Dialogue(str(i), tuple(turns)))
    return result


def jsonl(path: Path, count: int) -> Path:
    """Write dialogues as JSON Lines; return the path."""
    lines = [
        {
            "id": d.id,
            "turns": [
                {"speaker": t.speaker, "text": t.text, "labels": list(t.labels)} for t in d.turns
            ],
        }
        for d in dialogues(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
