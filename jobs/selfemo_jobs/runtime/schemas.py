"""Columns of the tables between stages: one row a candidate (a completion)."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

TURN = pa.struct([("speaker", pa.string()), ("text", pa.string())])

#: Self-play's output.
CANDIDATES = pa.schema(
    [
        pa.field("group_id", pa.string(), nullable=False),
        # Recognizer or Responder
        pa.field("role", pa.string(), nullable=False),
        pa.field("generation", pa.int32(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("dialogue_id", pa.string(), nullable=False),
        # index of the target utterance within its dialogue
        pa.field("utterance", pa.int32(), nullable=False),
        # 0 for the source's own turns, 1 … for those that self-play appended
        pa.field("turn", pa.int32(), nullable=False),
        # 0 … G-1 within the group
        pa.field("member", pa.int32(), nullable=False),
        # turns before the target, oldest first
        pa.field("context", pa.list_(TURN), nullable=False),
        # who says the target
        pa.field("speaker", pa.string(), nullable=False),
        # the utterance that is read; null for the responder
        pa.field("target", pa.string()),
        # emotions the response is meant to express; null for the recognizer
        pa.field("intended", pa.list_(pa.string())),
        # the source's own labels, only where `useLabels` allows it
        pa.field("gold", pa.list_(pa.string())),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("completion_ids", pa.list_(pa.int32()), nullable=False),
        # natural logarithms, of the distribution that was sampled from
        pa.field("logprobs", pa.list_(pa.float32()), nullable=False),
        # a recognizer's target as the judge is to read it, one prompt a view; with the group's
        # first member only, and empty where the judge reads `prompt_ids`
        pa.field("views", pa.list_(pa.list_(pa.int32())), nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        # parsed answer; null for the responder
        pa.field("labels", pa.list_(pa.string())),
        pa.field("well_formed", pa.bool_(), nullable=False),
        # ended by itself, not by the length limit
        pa.field("finished", pa.bool_(), nullable=False),
        # the response that was appended
        pa.field("chosen", pa.bool_(), nullable=False),
    ]
)

#: Score's output; the flywheel's has the same columns.
SCORED = pa.schema(
    [
        *CANDIDATES,
        # emotions of the group's consensus (Recognizer) or the intended ones (Responder); the
        # balance cap counts these
        pa.field("consensus", pa.list_(pa.string()), nullable=False),
        pa.field("alignment", pa.float32(), nullable=False),
        # with the group's other members (Recognizer; their mean is C), or among the judge's
        # readings of the response (Responder; C_y)
        pa.field("agreement", pa.float32(), nullable=False),
        pa.field("format", pa.float32(), nullable=False),
        pa.field("penalty", pa.float32(), nullable=False),
        pa.field("reward", pa.float32(), nullable=False),
        # share of the vote that names the consensus (Recognizer without gold labels), else 1
        pa.field("confidence", pa.float32(), nullable=False),
        # group-level consistency, mean of the group
        pa.field("consistency", pa.float32(), nullable=False),
        # group-relative, times the group's weight; over the whole group
        pa.field("advantage", pa.float32(), nullable=False),
    ]
)

#: Columns that tables of an earlier version lack, and what their rows then held: a run goes on, and
#: is read, after an upgrade.
ADDED: Final[dict[str, Any]] = {"views": [], "confidence": 1.0}
