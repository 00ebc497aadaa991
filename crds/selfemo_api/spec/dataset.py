"""``spec.dataset``: the label set and the files of dialogues."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsLabel, Rule
from selfemo_api.spec.fields import Emotion, Uri


class DataFormat(StrEnum):
    """The format of a source's file."""

    MELD = "MELD"
    EMORYNLP = "EmoryNLP"
    IEMOCAP = "IEMOCAP"
    JSONL = "JSONL"


class Source(ApiModel):
    """One file of dialogues."""

    name: DnsLabel
    """The name of the source in metrics and reports."""
    uri: Uri
    """The URI of the file. `data://volume/path` is a file in a mounted data volume."""
    format: DataFormat
    """The format of the file. `MELD` and `EmoryNLP` are the published CSV files. `IEMOCAP` is the
    JSON of BiosERC or of InstructERC. `JSONL` has one dialogue per line, as a JSON object."""
    use_labels: bool = False
    """Whether self-play reads the labels of this source as gold labels. The default is false, so
    that an evolution needs no labels. Evaluation always reads the labels."""
    first_dialogue: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """The number of dialogues to skip, in file order. Use it to leave out the dialogues that the
    warm start was trained on."""
    max_dialogues: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The largest number of dialogues to read. Unset: all."""
    draw: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The number of dialogues of this source that self-play draws in each generation, in addition
    to `selfPlay.dialogues`. Unset: the source shares `selfPlay.dialogues` with the others."""


class Context(ApiModel):
    """The number of turns around the target utterance that a prompt shows."""

    past: Annotated[int, Field(ge=0, le=64)] = 5
    """The number of turns before the target. BiosERC and PRC-Emo use five."""
    future: Annotated[int, Field(ge=0, le=64)] = 0
    """The number of turns after the target. The default is 0, because a live conversation has no
    later turns."""


class DatasetSpec(ApiModel):
    """The label set, and the files of dialogues for self-play and evaluation."""

    labels: Annotated[list[Emotion], Field(min_length=2, max_length=64)]
    """The emotions of the label set, in lower case. Lists by label in results have this order."""
    self_play: Annotated[list[Source], Field(min_length=1, max_length=16)]
    """The sources of the dialogues that self-play starts from. They need no labels."""
    evaluation: Annotated[list[Source], Field(min_length=1, max_length=16)]
    """The labeled sources on which each generation is evaluated. The selection dataset decides
    promotion: it is the first source, or the one that `evaluation.selectionDataset` names."""
    context: Context = Context()
    """The number of turns around the target utterance that a prompt shows."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.labels.all(l, self.labels.exists_one(m, m == l))",
            "`labels` must not contain a label twice",
        ),
        Rule(
            "self.selfPlay.all(s, self.selfPlay.exists_one(t, t.name == s.name))",
            "the names of the sources in `selfPlay` must be unique",
        ),
        Rule(
            "self.evaluation.all(s, self.evaluation.exists_one(t, t.name == s.name))",
            "the names of the sources in `evaluation` must be unique",
        ),
    )
