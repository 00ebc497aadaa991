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
    """The parts of a turn that a table column can contain."""

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
    """The URI of a file, a folder, or several files that match a pattern such as
    `data://mine/*.jsonl`. `data://volume/path` refers to a mounted data volume, `hf://owner/name`
    to the Hugging Face Hub."""
    use: Use
    """What the source is used for. `SelfPlay`: self-play starts from its dialogues and never reads
    its labels. `Labeled`: its labels are used for the warm start, the label prior and self-play.
    `Evaluation`: each generation is evaluated on it."""
    format: DataFormat | None = None
    """The format of the source. `MELD` and `EmoryNLP` are the published CSV files. `IEMOCAP` is the
    JSON format of BiosERC or InstructERC. `JSONL` contains one dialogue per line, as turns or as
    chat messages. `CSV` and `Parquet` contain one turn per row. `HuggingFace` is a dataset of the
    `datasets` library. If unset, the format is inferred from the name and the first bytes of the
    file."""
    offset: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """The number of dialogues to skip, in file order."""
    limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The maximum number of dialogues to read, after `offset`. If unset, all dialogues are read."""
    sample: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """The number of dialogues that self-play randomly samples from this source in each generation,
    in addition to `selfPlay.dialogues`. If unset, the source shares `selfPlay.dialogues` with the
    other sources."""

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
    """The number of turns after the target. The base value is 0, because a live conversation has no
    later turns."""


class DatasetSpec(ApiModel):
    """The label set, and the sources of dialogues for self-play and evaluation."""

    preset: Preset | None = None
    """A published dataset. It provides `labels` and `sources` if they are unset, for the files
    below `uri`. If unset, `labels` and `sources` are required."""
    uri: Uri | None = None
    """The URI of the folder with the files of `preset`."""
    labeled_dialogues: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    """The number of dialogues at the start of the first `SelfPlay` source whose labels are known.
    They become a separate source with `use: Labeled`. Defaults to a tenth of the training dialogues
    of `preset`, or to 0 without a preset."""
    labels: Annotated[list[Emotion], Field(min_length=2, max_length=64), FROM_PRESET]
    """The emotions of the label set. Lists by label in results use this order. If unset, the labels
    of `preset` are used."""
    label_prior: Annotated[dict[str, Share], Field(min_length=2, max_length=64)] | None = None
    """The expected frequency of each emotion where the model will be used, from 0 to 1. The
    flywheel and the evaluation use it if their `useLabelPrior` is true. If unset, the frequencies
    in the labeled sources are used."""
    columns: Annotated[dict[Column, ShortText], Field(max_length=8)] = {}
    """The name of the column for each part of a turn, for tables. If a part is omitted, its column
    is named after the part."""
    label_map: Annotated[
        dict[str, Annotated[str, Field(max_length=64)]], Field(max_length=256)
    ] = {}
    """Maps labels in the files to labels of the label set. An empty string means no label. Labels
    that are omitted remain unchanged."""
    context: Context = Context()
    """The number of turns around the target utterance that a prompt shows."""
    sources: Annotated[list[Source], Field(min_length=1, max_length=32), FROM_PRESET]
    """The sources of dialogues. The first source with `use: Evaluation` is the selection dataset,
    which decides promotion. If unset, the sources of `preset` are used."""

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
            "`labeledDialogues` must be less than `limit` of the first source with `use: SelfPlay`",
        ),
        Rule(
            "!has(self.labels) || self.labels.all(l, self.labels.exists_one(m, m == l))",
            "`labels` must not contain duplicates",
        ),
        Rule(
            "!has(self.sources) || "
            "self.sources.all(s, self.sources.exists_one(t, t.name == s.name))",
            "source names must be unique",
        ),
        Rule(
            "!has(self.sources) || self.sources.exists(s, s.use == 'Evaluation')",
            "`sources` must include a source with `use: Evaluation`",
        ),
        Rule(
            "!has(self.sources) || self.sources.exists(s, s.use != 'Evaluation')",
            "`sources` must include a source with `use: SelfPlay` or `use: Labeled`",
        ),
        # a result contains the scores of all of them: they must fit a pod's termination message
        Rule(
            "!has(self.sources) || size(self.sources.filter(s, s.use == 'Evaluation')) <= 16",
            "`sources` must include at most 16 sources with `use: Evaluation`",
        ),
        Rule(
            "!has(self.labelPrior) || self.labelPrior.exists(k, self.labelPrior[k] > 0.0)",
            "at least one value of `labelPrior` must be greater than 0",
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
