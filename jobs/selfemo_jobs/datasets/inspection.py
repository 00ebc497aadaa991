"""What the dialogues of an evolution are like, and what is wrong with them."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfemo_api.spec import DataFormat, Use
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.dialogue_store import turn_counts
from selfemo_jobs.datasets.label_set import labels_alike
from selfemo_jobs.datasets.overlap import DialogueIndex
from selfemo_jobs.datasets.reading import ODD_CHARACTERS, Oddity, SourceWarning
from selfemo_jobs.rewards.word_units import split_words

#: The field of the label set.
_LABELS_FIELD = "dataset.labels"


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "Error"
    UNAVAILABLE = "Unavailable"
    WARNING = "Warning"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with the data, or that its owner should know."""

    severity: Severity
    """An error ends a run. A warning does not. What is unavailable could not be looked at, because
    a service did not answer."""
    field: str
    """The field of the spec that it is about, as ``dataset.sources[0]``."""
    message: str
    """What is wrong, in one line."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


@dataclass(frozen=True)
class InspectedSource:
    """The dialogues of a source that are used."""

    field: str
    """The field of the spec, as ``dataset.sources[0]``; or the file, without a spec."""
    name: str
    """The name of the source."""
    dialogues: Sequence[Dialogue]
    """The dialogues, at least one. Turns have labels only if they are read for its use."""
    use: Use | None = None
    """What the source is used for. None: it is not known, and labels may be missing."""
    warnings: Sequence[SourceWarning] = ()
    """What was odd in the files when they were read."""
    kind: DataFormat | None = None
    """The format of the files. None: it is not reported."""


@dataclass(frozen=True)
class Spread:
    """The least, the usual and the greatest of some numbers."""

    least: int
    median: float
    mean: float
    most: int

    @classmethod
    def of(cls, values: Sequence[int] | NDArray[Any]) -> Spread:
        """Return the spread of one number or more."""
        numbers = np.asarray(values)
        mean = round(int(numbers.sum(dtype=np.int64)) / len(numbers), 2)
        return cls(int(numbers.min()), float(np.median(numbers)), mean, int(numbers.max()))


@dataclass(frozen=True)
class SourceStatistics:
    """What the dialogues of a source are like."""

    field: str
    name: str
    use: str | None
    format: str | None
    dialogues: int
    turns: int
    speakers: int
    turns_per_dialogue: Spread
    length: Spread
    """The lengths of the turns, in the report's unit."""
    labels: Mapping[str, int]
    """The number of turns with each label: first those of the label set, in its order."""
    unlabeled: int
    """The number of turns without a label."""
    several_labels: int
    """The number of turns with two labels or more."""
    repeated_dialogues: int
    """The number of dialogues that are the same as an earlier one."""
    odd_characters: Mapping[str, int]
    """The number of each odd character, by its code and name."""


@dataclass(frozen=True)
class DataReport:
    """What the sources are like, and what is wrong with them."""

    unit: str
    """The unit of lengths: ``words`` or ``tokens``."""
    sources: tuple[SourceStatistics, ...]
    """The figures of each source that could be read."""
    findings: tuple[Finding, ...]
    """The findings, errors first."""

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of a severity."""
        return tuple(finding for finding in self.findings if finding.severity is severity)

    def to_json(self) -> dict[str, Any]:
        """Return the report for JSON, with keys in camel case."""
        report: dict[str, Any] = _camel_keys(asdict(self))
        return report


def inspect_dialogues(
    sources: Sequence[InspectedSource],
    labels: Sequence[str] | None = None,
    *,
    length: Callable[[str], int] | None = None,
) -> DataReport:
    """Return what the sources of an evolution are like, and what is wrong with them.

    Parameters
    ----------
    sources
        The sources, with the dialogues that are used.
    labels
        The label set. None: it is not known.
    length
        Returns the number of tokens of a text. None: lengths are in words.

    Examples
    --------
    >>> from selfemo_jobs.datasets.dialogue import Utterance
    >>> dialogue = Dialogue("d1", (Utterance("Ann", "Hi!"),))
    >>> dev = InspectedSource("dataset.sources[1]", "dev", [dialogue], Use.EVALUATION)
    >>> print(inspect_dialogues([dev]).of(Severity.ERROR)[0])
    dataset.sources[1]: no turn has a label, but an evaluation source needs them
    """
    indexes = [DialogueIndex(source.dialogues) for source in sources]
    figures = [
        _figures(source, labels or (), length or count_words, len(index.repeated))
        for source, index in zip(sources, indexes, strict=True)
    ]
    findings = [
        *_label_set_findings(labels or ()),
        *(f for s, x in zip(sources, figures, strict=True) for f in _findings(s, x, labels or ())),
        *_repeats(sources, indexes),
        *_overlaps(sources, indexes),
    ]
    return DataReport("tokens" if length else "words", tuple(figures), sort_findings(findings))


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by severity, errors first, in their order otherwise."""
    order = list(Severity)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))


def count_words(text: str) -> int:
    """Return the number of words of a text, by the rules of its script.

    Examples
    --------
    >>> count_words("Oh no, don't!"), count_words("我赢了！")
    (3, 3)
    """
    return len(split_words(text))


def odd_characters(text: str) -> Counter[str]:
    r"""Return the odd characters of a text, each as its code and name, with their numbers.

    Examples
    --------
    >>> dict(odd_characters("it\ufffds"))
    {'U+FFFD REPLACEMENT CHARACTER': 1}
    """
    counts = Counter(ODD_CHARACTERS.findall(text))
    return Counter(
        {f"U+{ord(c):04X} {unicodedata.name(c, '')}".rstrip(): n for c, n in counts.items()}
    )


def _figures(
    source: InspectedSource, labels: Sequence[str], length: Callable[[str], int], repeated: int
) -> SourceStatistics:
    """Return the figures of a source, whose dialogues are read once."""
    counts: Counter[str] = Counter()
    odd: Counter[str] = Counter()
    speakers: set[str] = set()
    lengths = array("I")
    unlabeled = several = 0
    for turn in (turn for dialogue in source.dialogues for turn in dialogue.turns):
        counts.update(turn.labels)
        odd.update(odd_characters(turn.text))
        speakers.add(turn.speaker)
        lengths.append(length(turn.text))
        unlabeled += not turn.labels
        several += len(turn.labels) > 1
    known = {label: counts.pop(label) for label in labels if label in counts}
    return SourceStatistics(
        field=source.field,
        name=source.name,
        use=source.use and source.use.value,
        format=source.kind and source.kind.value,
        dialogues=len(source.dialogues),
        turns=len(lengths),
        speakers=len(speakers),
        turns_per_dialogue=Spread.of(turn_counts(source.dialogues)),
        length=Spread.of(np.asarray(lengths)),
        labels={**known, **dict(counts.most_common())},
        unlabeled=unlabeled,
        several_labels=several,
        repeated_dialogues=repeated,
        odd_characters=dict(odd.most_common()),
    )


def _label_set_findings(labels: Sequence[str]) -> Iterator[Finding]:
    """Yield the labels of the label set that are the same in files or in answers."""
    for message in labels_alike(labels):
        yield Finding(Severity.ERROR, _LABELS_FIELD, message)


def _findings(
    source: InspectedSource, figures: SourceStatistics, labels: Sequence[str]
) -> Iterator[Finding]:
    """Yield what is wrong within one source."""
    needs = {Use.EVALUATION: "an evaluation source", Use.LABELED: "a labeled source"}
    if source.use in needs and not figures.labels:
        yield Finding(
            Severity.ERROR,
            source.field,
            f"no turn has a label, but {needs[source.use]} needs them",
        )
    for warning in source.warnings:
        if warning.kind is not Oddity.UNLABELED:
            yield Finding(Severity.WARNING, source.field, warning.message)
    missing = [label for label in labels if label not in figures.labels]
    if figures.labels and missing and source.use in needs:
        names = ", ".join(f"`{label}`" for label in missing)
        yield Finding(
            Severity.WARNING,
            source.field,
            f"no turn has the label {names}",
        )
    if figures.turns_per_dialogue.most == 1 and source.use is not None:
        yield Finding(
            Severity.WARNING,
            source.field,
            "each dialogue has only one turn: prompts show no context",
        )


def _repeats(
    sources: Sequence[InspectedSource], indexes: Sequence[DialogueIndex]
) -> Iterator[Finding]:
    """Yield the dialogues that are twice in a source."""
    for source, index in zip(sources, indexes, strict=True):
        if index.repeated:
            name, first = index.repeated[0]
            yield Finding(
                Severity.WARNING,
                source.field,
                f"{_dialogues(len(index.repeated), 'repeats', 'repeat')} an earlier one (the "
                f"first: {name}, the same as {first})",
            )


def _overlaps(
    sources: Sequence[InspectedSource], indexes: Sequence[DialogueIndex]
) -> Iterator[Finding]:
    """Yield the dialogues that are in two sources, each with the source that they spoil."""
    for left, right in combinations(range(len(sources)), 2):
        evaluated = sources[right].use is Use.EVALUATION or sources[left].use is not Use.EVALUATION
        first, second = (right, left) if evaluated else (left, right)
        overlap = indexes[first].overlap(indexes[second])
        if overlap is None:
            continue
        uses = {sources[first].use, sources[second].use}
        spoiled = ": its scores are too good" if Use.EVALUATION in uses and len(uses) > 1 else ""
        yield Finding(
            Severity.WARNING,
            sources[first].field,
            f"{_dialogues(overlap.count, 'is', 'are')} also in source `{sources[second].name}`, "
            f"in whole or with three turns in a row (the first: {overlap.example}, like "
            f"{overlap.twin} there){spoiled}",
        )


def _dialogues(count: int, one: str, many: str) -> str:
    return f"1 dialogue {one}" if count == 1 else f"{count} dialogues {many}"


def _camel_keys(value: Any) -> Any:
    """Return a value with the names of fields in camel case. Labels and characters stay."""
    if not isinstance(value, dict):
        return [_camel_keys(item) for item in value] if isinstance(value, list | tuple) else value
    return {
        re.sub(r"_(\w)", lambda match: match[1].upper(), key): item
        if key in {"labels", "odd_characters"}
        else _camel_keys(item)
        for key, item in value.items()
    }
