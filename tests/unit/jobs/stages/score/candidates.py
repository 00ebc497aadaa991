"""Builds small groups of candidates for the tests of the score stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from selfemo_jobs.runtime.schemas import CANDIDATES

Names = Sequence[str]
CONTEXT = [{"speaker": "Ann", "text": "Where were you last night?"}]


def _row(group: str, row_role: str, member: int, /, **columns: Any) -> dict[str, Any]:
    return {
        "group_id": group,
        "role": row_role,
        "generation": 1,
        "source": "demo",
        "dialogue_id": "d1",
        "utterance": 1,
        "turn": 0,
        "member": member,
        "context": CONTEXT,
        "speaker": "Bob",
        "target": None,
        "intended": None,
        "gold": None,
        "prompt_ids": [5, 6, 7],
        "completion_ids": [1, 2],
        "logprobs": [-0.5, -0.25],
        "views": [],
        "completion": "",
        "labels": None,
        "well_formed": True,
        "finished": True,
        "chosen": member == 0,
        **columns,
    }


def recognizer(
    group: str, answers: Sequence[Names], *, gold: Names | None = None, **columns: Any
) -> list[dict[str, Any]]:
    """Return a recognizer group; an empty answer is not well formed."""
    return [
        _row(
            group,
            "Recognizer",
            i,
            **{
                "labels": list(answer),
                "completion": ", ".join(answer),
                "well_formed": bool(answer),
                "gold": gold,
                "target": "At home.",
                **columns,
            },
        )
        for i, answer in enumerate(answers)
    ]


def responder(
    group: str, intended: Names, responses: Sequence[str], **columns: Any
) -> list[dict[str, Any]]:
    """Return a responder group."""
    return [
        _row(
            group,
            "Responder",
            i,
            **{"intended": list(intended), "completion": response, **columns},
        )
        for i, response in enumerate(responses)
    ]


def table(*groups: Iterable[dict[str, Any]]) -> pa.Table:
    """Return the table of a part with these groups."""
    return pa.Table.from_pylist([row for group in groups for row in group], CANDIDATES)
