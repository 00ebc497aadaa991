"""``spec.dataset``: where dialogues come from."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsLabel, Rule
from selfemo_api.spec.fields import Emotion, Uri


class DataFormat(StrEnum):
    """How a source is laid out."""

    MELD = "MELD"
    EMORYNLP = "EmoryNLP"
    IEMOCAP = "IEMOCAP"
    JSONL = "JSONL"


class Source(ApiModel):
    """One file of dialogues."""

    name: DnsLabel
    """Names the source in metrics and reports."""
    uri: Uri
    """The file. `data://volume/path` is looked up in the mounted data volumes."""
    format: DataFormat
    use_labels: bool = False
    """Let self-play read this source's labels as gold. Off: the evolution is label-free."""
    first_dialogue: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Skip this many dialogues (in file order), e.g. those that the warm start has seen."""
    max_dialogues: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Take at most this many dialogues. Unset: all."""
    draw: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Self-play draws this many of them each generation, whatever `selfPlay.dialogues` says. Unset:
    they share `selfPlay.dialogues` with the other sources."""


class Context(ApiModel):
    """How much of the dialogue the recognizer sees around the target utterance."""

    past: Annotated[int, Field(ge=0, le=64)] = 5
    """Turns before the target; five is what BiosERC and PRC-Emo use."""
    future: Annotated[int, Field(ge=0, le=64)] = 0
    """Turns after the target. 0: only the past is known, as in a live conversation."""


class DatasetSpec(ApiModel):
    """Where dialogues come from."""

    labels: Annotated[list[Emotion], Field(min_length=2, max_length=64)]
    """The emotions, all lower case."""
    self_play: Annotated[list[Source], Field(min_length=1, max_length=16)]
    """Unlabeled dialogues that self-play starts from."""
    evaluation: Annotated[list[Source], Field(min_length=1, max_length=16)]
    """Labeled dialogues. The first (or `evaluation.selectionDataset`) chooses the best
    generation."""
    context: Context = Context()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.labels.all(l, self.labels.exists_one(m, m == l))", "`labels` must not repeat"),
        Rule(
            "self.selfPlay.all(s, self.selfPlay.exists_one(t, t.name == s.name))",
            "`selfPlay` must name each source once",
        ),
        Rule(
            "self.evaluation.all(s, self.evaluation.exists_one(t, t.name == s.name))",
            "`evaluation` must name each source once",
        ),
    )
