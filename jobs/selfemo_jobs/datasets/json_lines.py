"""Writes dialogues in this project's own format: JSON Lines, with a dialogue on each line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from selfemo_jobs.datasets.dialogue import Dialogue


def to_json_lines(dialogues: Iterable[Dialogue]) -> bytes:
    """Return dialogues in this project's own format, in UTF-8.

    Parameters
    ----------
    dialogues
        The dialogues. A turn without labels has no key for them.

    Examples
    --------
    >>> from selfemo_jobs.datasets.dialogue import Utterance
    >>> print(to_json_lines([Dialogue("d1", (Utterance("Ann", "Hi"),))]).decode().strip())
    {"id": "d1", "turns": [{"speaker": "Ann", "text": "Hi"}]}
    """
    return "".join(
        json.dumps(_record(dialogue), ensure_ascii=False) + "\n" for dialogue in dialogues
    ).encode()


def _record(dialogue: Dialogue) -> dict[str, Any]:
    """Return a dialogue as a JSON object."""
    turns = [
        {"speaker": turn.speaker, "text": turn.text}
        | ({"labels": list(turn.labels)} if turn.labels else {})
        for turn in dialogue.turns
    ]
    return {"id": dialogue.id, "turns": turns}
