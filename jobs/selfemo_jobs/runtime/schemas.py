"""Columns of the tables between stages. Each row is a candidate (a completion)."""

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
        # 0 for the source's own turns, 1 and more for those that self-play appended
        pa.field("turn", pa.int32(), nullable=False),
        # 0 to G-1 within the group
        pa.field("member", pa.int32(), nullable=False),
        # turns before the target, oldest first
        pa.field("context", pa.list_(TURN), nullable=False),
        # the speaker of the target
        pa.field("speaker", pa.string(), nullable=False),
        # the utterance to recognize; null for the responder
        pa.field("target", pa.string()),
        # the emotions that the response is to express; null for the recognizer
        pa.field("intended", pa.list_(pa.string())),
        # the source's own labels, only where `useLabels` allows it
        pa.field("gold", pa.list_(pa.string())),
        pa.field("prompt_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("completion_ids", pa.list_(pa.int32()), nullable=False),
        # natural logarithms, of the distribution that the tokens were sampled from
        pa.field("logprobs", pa.list_(pa.float32()), nullable=False),
        # the judge's prompts for a recognizer's target, one for each view; only in the row of the
        # group's first member, and empty where the judge reads `prompt_ids`
        pa.field("views", pa.list_(pa.list_(pa.int32())), nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        # parsed answer; null for the responder
        pa.field("labels", pa.list_(pa.string())),
        pa.field("well_formed", pa.bool_(), nullable=False),
        # ended before the length limit
        pa.field("finished", pa.bool_(), nullable=False),
        # the response that was appended
        pa.field("chosen", pa.bool_(), nullable=False),
    ]
)

#: Score's output; the flywheel's has the same columns.
SCORED = pa.schema(
    [
        *CANDIDATES,
        # the emotions of the group's consensus (Recognizer), or the intended ones (Responder); the
        # balance cap counts these
        pa.field("consensus", pa.list_(pa.string()), nullable=False),
        pa.field("alignment", pa.float32(), nullable=False),
        # agreement with the group's other members (Recognizer; its mean is C), or among the judge's
        # readings of the response (Responder; C_y)
        pa.field("agreement", pa.float32(), nullable=False),
        pa.field("format", pa.float32(), nullable=False),
        pa.field("penalty", pa.float32(), nullable=False),
        pa.field("reward", pa.float32(), nullable=False),
        # the share of votes for the consensus (Recognizer without gold labels); otherwise 1
        pa.field("confidence", pa.float32(), nullable=False),
        # consistency: the mean of `agreement` over the group
        pa.field("consistency", pa.float32(), nullable=False),
        # the reward relative to the whole group, times the group's weight
        pa.field("advantage", pa.float32(), nullable=False),
    ]
)

#: Columns that tables of an earlier version lack, with the value that their rows then have. A run
#: can continue, and can be read, after an upgrade.
ADDED: Final[dict[str, Any]] = {"views": [], "confidence": 1.0, "probability": None}

#: Key of self-play's report. It is there if a labeled turn of a source has several labels.
LABEL_SETS: Final = "labelSets"
