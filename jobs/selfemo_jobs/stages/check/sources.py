"""The sources of dialogues: whether they can be read, and what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfemo_api.spec import EvolutionSpec, Source, Use
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.dialogue_store import (
    StoredDialogues,
    has_label_sets,
    labeled_counts,
    turn_counts,
)
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.inspect_dataset import label_map_findings
from selfemo_jobs.datasets.inspection import InspectedSource, Severity, inspect_dialogues
from selfemo_jobs.datasets.load import select_dialogues, spec_options
from selfemo_jobs.datasets.reading import SourceWarning
from selfemo_jobs.datasets.stored_source import store_content
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.storage import Reader

#: The field with the folder of a preset's files.
_PRESET = "dataset.uri"
#: Separates a field from the name of a source while sources are inspected.
_NAME = " | "


@dataclass(frozen=True)
class ReadSource:
    """A source that could be read."""

    source: Source
    field: str
    """The field in which a person names the source."""
    dialogues: Sequence[Dialogue]
    """The dialogues that ``offset`` and ``limit`` select."""
    warnings: Sequence[SourceWarning]
    """What is odd in the files."""


def read_sources(
    spec: EvolutionSpec, reader: Reader, work: Path, findings: Findings
) -> list[ReadSource]:
    """Return the sources that can be read.

    Parameters
    ----------
    spec
        The resolved spec.
    reader
        What sources on S3 are read with.
    work
        The scratch folder, for copies.
    findings
        The problems and warnings are added to it.
    """
    read = []
    sources = spec.dataset.sources
    for position, (source, field) in enumerate(zip(sources, source_fields(spec), strict=True)):
        if reader.skips(source.uri):
            continue
        options = spec_options(spec.dataset, read_labels=source.use is not Use.SELF_PLAY)
        with findings.collecting(field if field == _PRESET else f"{field}.uri"):
            files = fetch_source(source.uri, reader.store, work)
            content = store_content(files, source.format, options, work)
            dialogues = _select(sources, position, field, content.dialogues, findings)
            if dialogues:
                read.append(ReadSource(source, field, dialogues, content.warnings))
    _inspect(spec, read, findings)
    if spec.reward.judge.samples == 0:
        _require_single_labels(read, findings)
    return read


def _require_single_labels(sources: Sequence[ReadSource], findings: Findings) -> None:
    """Find labeled sources whose utterances have several labels: these have no probabilities."""
    for read in sources:
        if read.source.use is Use.LABELED and has_label_sets(read.dialogues):
            findings.problem(
                "reward.judge.samples",
                f"0 requires one label for each utterance, but an utterance of source "
                f"`{read.source.name}` has several: set it to 1 or more",
            )


def _inspect(spec: EvolutionSpec, sources: Sequence[ReadSource], findings: Findings) -> None:
    """Find what is wrong within sources, and between them.

    Sources that share a field are named: those of a preset, and the parts of a divided one.
    """
    shared = Counter(source.field for source in sources)
    names = [
        f"{s.field}{_NAME}{s.source.name}" if shared[s.field] > 1 else s.field for s in sources
    ]
    inspected = [
        InspectedSource(name, s.source.name, s.dialogues, s.source.use, s.warnings)
        for name, s in zip(names, sources, strict=True)
    ]
    report = inspect_dialogues(inspected, spec.dataset.labels)
    for finding in (*label_map_findings(spec.dataset), *report.findings):
        add = findings.problem if finding.severity is Severity.ERROR else findings.warning
        field, _, name = finding.field.partition(_NAME)
        add(field, f"source `{name}`: {finding.message}" if name else finding.message)


def source_fields(spec: EvolutionSpec) -> list[str]:
    """Return the field in which a person names each source.

    A preset makes sources that no one has written, and ``labeledDialogues`` makes two of one.

    Parameters
    ----------
    spec
        The resolved spec.
    """
    fields: list[str] = []
    index = 0
    sources = spec.dataset.sources
    for position, source in enumerate(sources):
        before = sources[position - 1] if position else None
        if before is not None and is_divided(source, before):
            fields.append(fields[-1])
            continue
        root = (spec.dataset.uri or "").rstrip("/")
        of_preset = spec.dataset.preset is not None and source.uri.startswith(f"{root}/")
        fields.append(_PRESET if of_preset else f"dataset.sources[{index}]")
        index += 1
    return fields


def is_divided(labeled: Source, rest: Source) -> bool:
    """Return whether a source is the labeled part of the one before, by ``labeledDialogues``."""
    return (
        labeled.use is Use.LABELED
        and rest.use is Use.SELF_PLAY
        and labeled.uri == rest.uri
        and labeled.limit is not None
        and labeled.offset + labeled.limit == rest.offset
        and labeled.name == f"{rest.name[:55]}-labeled"
    )


def label_prior(labels: Sequence[str], sources: Sequence[ReadSource]) -> dict[str, float] | None:
    """Return the share of each label in the labeled sources; None if they have no label.

    With several labels of an utterance, each counts: the shares are those of the label mentions. A
    label that the sources lack counts once: in a small labeled subset, a rare emotion may be
    missing by chance. With a share of 0, the flywheel would keep none of its groups in any
    generation, and the evaluation would count none of its utterances.

    Parameters
    ----------
    labels
        The label set.
    sources
        The sources that could be read.
    """
    counts: Counter[str] = Counter()
    for read in sources:
        if read.source.use is Use.LABELED:
            counts.update(
                label
                for dialogue in read.dialogues
                for turn in dialogue.turns
                for label in turn.labels
            )
    if not any(counts[label] for label in labels):
        return None
    at_least_one = {label: max(1, counts[label]) for label in labels}
    total = sum(at_least_one.values())
    return {label: count / total for label, count in at_least_one.items()}


def source_counts(sources: Sequence[ReadSource]) -> dict[str, dict[str, int]]:
    """Return the numbers of dialogues and utterances by source.

    Parameters
    ----------
    sources
        The sources that could be read.

    Returns
    -------
    dict
        For each source: ``dialogues``, ``utterances``, and ``labeled``, the number of utterances
        with a label. Of a source for self-play alone, no label is read.
    """
    return {
        read.source.name: {
            "dialogues": len(read.dialogues),
            "utterances": int(turn_counts(read.dialogues).sum()),
            "labeled": int(labeled_counts(read.dialogues).sum()),
        }
        for read in sources
    }


def _select(
    sources: Sequence[Source],
    position: int,
    field: str,
    dialogues: StoredDialogues,
    findings: Findings,
) -> Sequence[Dialogue]:
    """Return the dialogues that a source selects; none, and a problem, if none is left."""
    source = sources[position]
    if source.offset < len(dialogues):
        return select_dialogues(source, dialogues)
    number = f"{source.uri} has {len(dialogues)} dialogues"
    after = sources[position + 1 : position + 2]
    if after and is_divided(after[0], source):
        findings.problem(
            "dataset.labeledDialogues",
            f"is {after[0].limit}, but {number}: none is left without labels; set less",
        )
    else:
        findings.problem(f"{field}.offset", f"is {source.offset}, but {number}: none is left")
    return ()
