"""What a stage says when it ends: the JSON in its termination message (at most 4 KiB)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel
from selfemo_api.stages import Stage

#: Kubernetes cuts a container's termination message here.
TERMINATION_MESSAGE_BYTES = 4096

Metrics = Annotated[dict[str, float], Field(max_length=64)]
LabelValues = Annotated[list[float], Field(max_length=64)]


class SourceScore(ApiModel):
    """Figures of one evaluation source. Lists follow the order of `dataset.labels`."""

    source: Annotated[str, Field(max_length=63)]
    utterances: int
    weighted_f1: float
    """Unparsable answers mapped to the nearest label, as InstructERC does."""
    weighted_f1_low: float | None = None
    weighted_f1_high: float | None = None
    strict_weighted_f1: float
    """Unparsable answers count as wrong."""
    macro_f1: float
    accuracy: float
    unparsable: float
    """Share of answers that name no label."""
    label_entropy: float
    """Entropy of the predicted labels over log(number of labels), 0 to 1."""
    f1_by_label: LabelValues = []
    predicted_shares: LabelValues = []


class StageResult(ApiModel):
    """Result of one stage of one generation."""

    stage: Stage
    generation: int
    manifest: Annotated[str, Field(max_length=2048)]
    """URI of the stage's manifest."""
    manifest_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    rows: int = 0
    metrics: Metrics = {}
    scores: Annotated[list[SourceScore], Field(max_length=16)] = []
    model_uri: Annotated[str, Field(max_length=2048)] | None = None
    """Train only: the model made."""
    seconds: float = 0.0
    """Wall time of the attempt that made it; 0 when it was found ready."""
    reused: bool = False
    """Whether the manifest was already there."""


class ShardResult(ApiModel):
    """What a shard says that did not complete its stage: others are still at work."""

    stage: Stage
    generation: int
    shard: int
    rows: int = 0


class FailureMessage(ApiModel):
    """What a failing stage says."""

    error: Annotated[str, Field(max_length=2048)]
    """One line: what was wrong, where, what to do."""
    kind: Annotated[str, Field(max_length=64)]
    """`BadInput`, `Unavailable` or `Internal`."""


def encode_message(message: StageResult | ShardResult | FailureMessage) -> str:
    """Return the termination message, cut to what Kubernetes keeps.

    Where the whole would be too long, per-label lists are left out of all scores but the first, and
    then the last scores: the manifest keeps them. The end of a long error is cut.

    Raises
    ------
    ValueError
        If even the short form is over 4 KiB.
    """
    if isinstance(message, FailureMessage):
        return _failure_text(message)
    text = _dump(message)
    if _fits(text) or not isinstance(message, StageResult):
        return _checked(text)
    short = [
        s if i == 0 else s.model_copy(update={"f1_by_label": [], "predicted_shares": []})
        for i, s in enumerate(message.scores)
    ]
    for kept in range(len(short), 0, -1):
        text = _dump(message.model_copy(update={"scores": short[:kept]}))
        if _fits(text):
            break
    return _checked(text)


def _failure_text(message: FailureMessage) -> str:
    """Return a failure's message: whatever the error holds, it must be said."""
    error = message.error.encode("utf-8", "replace").decode()  # names of files may be no UTF-8
    while not _fits(text := _dump(message.model_copy(update={"error": error}))):
        error = error[: len(error) * 3 // 4]
    return text


def _dump(message: ApiModel) -> str:
    return message.model_dump_json(by_alias=True, exclude_none=True)


def _fits(text: str) -> bool:
    return len(text.encode()) <= TERMINATION_MESSAGE_BYTES


def _checked(text: str) -> str:
    if not _fits(text):
        raise ValueError(f"the termination message is over {TERMINATION_MESSAGE_BYTES} bytes")
    return text


def decode_message(text: str) -> StageResult | ShardResult | FailureMessage | None:
    """Return what a termination message says, or None where it is none of ours (cut, or empty)."""
    for kind in (StageResult, ShardResult, FailureMessage):
        try:
            return kind.model_validate_json(text)
        except ValueError:
            continue
    return None
