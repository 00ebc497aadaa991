"""``spec.dataset``: the label set and the sources of dialogues."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsLabel, Rule, Share, ShortText
from selfemo_api.spec.fields import EXPERT, FROM_PRESET, NO_BLANK, NO_BLANK_MESSAGE, Emotion, Uri


class DataFormat(StrEnum):
    """The format of a source."""

    MELD = "MELD"
    EMORYNLP = "EmoryNLP"
    IEMOCAP = "IEMOCAP"
    JSONL = "JSONL"
    CSV = "CSV"
    PARQUET = "Parquet"
    HUGGING_FACE = "HuggingFace"


class Preset(StrEnum):
    """A published dataset whose files, format and labels are known."""

    MELD = "MELD"
    EMORYNLP = "EmoryNLP"
    IEMOCAP = "IEMOCAP"


class Use(StrEnum):
    """What a source is used for."""

    SELF_PLAY = "SelfPlay"
    LABELED = "Labeled"
    EVALUATION = "Evaluation"


class Column(StrEnum):
    """The parts of a turn that a column of a table can have."""

    DIALOGUE = "dialogue"
    TURN = "turn"
    SPEAKER = "speaker"
    TEXT = "text"
    LABEL = "label"


class Source(ApiModel):
    """One source of dialogues."""

    name: DnsLabel
    """The name of the source in metrics and reports."""
    uri: Uri
    """The URI of a file, a folder, or several files by a pattern such as `data://mine/*.jsonl`.
    `data://volume/path` is in a mounted data volume, `hf://owner/name` on the Hugging Face Hub."""
    use: Use
    """What the source is used for. `SelfPlay`: self-play starts from its dialogues and never reads
    its labels. `Labeled`: its labels are the labeled share, for the warm start, the label prior and
    self-play. `Evaluation`: each generation is evaluated on it."""
    format: DataFormat | None = None
    """The format of the source. `MELD` and `EmoryNLP` are the published CSV files. `IEMOCAP` is the
    JSON of BiosERC or of InstructERC. `JSONL` has one dialogue per line, as turns or as chat
    messages. `CSV` and `Parquet` have one turn per row. `HuggingFace` is a dataset of the
    `datasets` library. Unset: it follows from the name and the first bytes of the file."""
    offset: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """The number of dialogues to skip, in file order."""
    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The largest number of dialogues to read, after `offset`. Unset: all."""
    sample: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The number of dialogues of this source that self-play draws at random in each generation, in
    addition to `selfPlay.dialogues`. Unset: the source shares `selfPlay.dialogues` with others."""

    rules: ClassVar[tuple[Rule, ...]] = (Rule(NO_BLANK, NO_BLANK_MESSAGE),)

    @property
    def use_labels(self) -> bool:
        """Whether self-play reads the labels of this source as gold labels."""
        return self.use is Use.LABELED


class Context(ApiModel):
    """The number of turns around the target utterance that a prompt shows."""

    past: Annotated[int, Field(ge=0, le=64)] = 5
    """The number of turns before the target. BiosERC and PRC-Emo use five."""
    future: Annotated[int, Field(ge=0, le=64), EXPERT] = 0
    """The number of turns after the target. It is 0, because a live conversation has no later
    turns."""


class DatasetSpec(ApiModel):
    """The label set, and the sources of dialogues for self-play and evaluation."""

    preset: Preset | None = None
    """A published dataset. It gives `labels` and `sources` that are unset, for the files below
    `uri`. Unset: `labels` and `sources` are required."""
    uri: Uri | None = None
    """The URI of the folder with the files of `preset`."""
    labeled_dialogues: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    """The number of dialogues at the start of the first `SelfPlay` source whose labels are known.
    They become a source of their own with the use `Labeled`. Unset: a tenth of the dialogues of
    `preset`; without a preset, none."""
    labels: Annotated[list[Emotion], Field(min_length=2, max_length=64), FROM_PRESET]
    """The emotions of the label set. Lists by label in results have this order. Unset: those of
    `preset`."""
    label_prior: Annotated[dict[str, Share], Field(min_length=2, max_length=64)] | None = None
    """The share of each emotion where the model will be used, from 0 to 1. The flywheel and the
    evaluation use it if their `useLabelPrior` is true. Unset: the shares in the labeled sources."""
    columns: Annotated[dict[Column, ShortText], Field(max_length=8)] = {}
    """The names of the columns of a table, by the part of a turn that they have. A part that is
    left out has the column of its own name."""
    label_map: Annotated[
        dict[str, Annotated[str, Field(max_length=64)]], Field(max_length=256)
    ] = {}
    """The label of the label set for each label in the files. An empty text stands for no label.
    Labels that are left out remain as they are."""
    context: Context = Context()
    """The number of turns around the target utterance that a prompt shows."""
    sources: Annotated[list[Source], Field(min_length=1, max_length=32), FROM_PRESET]
    """The sources of dialogues. The first source with the use `Evaluation` is the selection
    dataset, which decides promotion. Unset: those of `preset`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.labels) && has(self.sources)) || (has(self.preset) && has(self.uri))",
            "`labels` and `sources` are required without `preset` and `uri`",
        ),
        Rule("!has(self.uri) || has(self.preset)", "`uri` requires `preset`"),
        Rule(
            "!has(self.labeledDialogues) || self.labeledDialogues == 0 || !has(self.sources) || "
            "self.sources.exists(s, s.use == 'SelfPlay')",
            "`labeledDialogues` requires a source with `use: SelfPlay`",
        ),
        Rule(
            "!has(self.labeledDialogues) || !has(self.sources) || "
            "!self.sources.exists(s, s.use == 'SelfPlay') || "
            "!has(self.sources.filter(s, s.use == 'SelfPlay')[0].limit) || "
            "self.labeledDialogues < self.sources.filter(s, s.use == 'SelfPlay')[0].limit",
            "`labeledDialogues` must be below the `limit` of the first source with `use: SelfPlay`",
        ),
        Rule(
            "!has(self.labels) || self.labels.all(l, self.labels.exists_one(m, m == l))",
            "`labels` must not contain a label twice",
        ),
        Rule(
            "!has(self.sources) || "
            "self.sources.all(s, self.sources.exists_one(t, t.name == s.name))",
            "the names of the sources must be unique",
        ),
        Rule(
            "!has(self.sources) || self.sources.exists(s, s.use == 'Evaluation')",
            "`sources` must have a source with `use: Evaluation`",
        ),
        Rule(
            "!has(self.sources) || self.sources.exists(s, s.use != 'Evaluation')",
            "`sources` must have a source with `use: SelfPlay` or `use: Labeled`",
        ),
        # a result has the scores of as many: they fit a pod's termination message
        Rule(
            "!has(self.sources) || size(self.sources.filter(s, s.use == 'Evaluation')) <= 16",
            "`sources` must have at most 16 sources with `use: Evaluation`",
        ),
        Rule(
            "!has(self.labelPrior) || self.labelPrior.exists(k, self.labelPrior[k] > 0.0)",
            "at least one share of `labelPrior` must be above 0",
        ),
    )

    @property
    def self_play(self) -> list[Source]:
        """The sources that self-play starts from, labeled ones included."""
        return [source for source in self.sources if source.use is not Use.EVALUATION]

    @property
    def labeled(self) -> list[Source]:
        """The sources whose labels are read before evaluation."""
        return [source for source in self.sources if source.use is Use.LABELED]

    @property
    def evaluation(self) -> list[Source]:
        """The labeled sources on which each generation is evaluated."""
        return [source for source in self.sources if source.use is Use.EVALUATION]
