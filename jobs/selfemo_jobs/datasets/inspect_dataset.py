"""Reads and inspects all sources of a spec, and finds all that is wrong at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from selfemo_api.dataset_labels import label_key
from selfemo_api.spec import DatasetSpec, Source, Use
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.inspection import (
    DataReport,
    Finding,
    InspectedSource,
    Severity,
    inspect_dialogues,
    sort_findings,
)
from selfemo_jobs.datasets.load import read_source, select_dialogues, spec_options
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store import Store


def inspect_dataset(
    dataset: DatasetSpec,
    store: Store | None,
    work: Path,
    *,
    length: Callable[[str], int] | None = None,
) -> DataReport:
    """Return what the sources of a spec are like. A source that cannot be read is a finding.

    It never raises an error of a source, so that all problems are reported at once.

    Parameters
    ----------
    dataset
        The dataset of the spec.
    store
        The run's store, for ``s3://`` sources. None: there is none.
    work
        The scratch folder.
    length
        Returns the number of tokens of a text. None: lengths are in words.
    """
    sources = []
    problems = list(label_map_findings(dataset))
    for number, source in enumerate(dataset.sources):
        field = f"dataset.sources[{number}]"
        try:
            sources.append(_inspected(dataset, source, field, store, work))
        except BadInput as error:
            problems.append(Finding(Severity.ERROR, field, str(error)))
        except Unavailable as error:
            problems.append(Finding(Severity.UNAVAILABLE, field, str(error)))
    report = inspect_dialogues(sources, dataset.labels, length=length)
    return replace(report, findings=sort_findings([*problems, *report.findings]))


def _inspected(
    dataset: DatasetSpec, source: Source, field: str, store: Store | None, work: Path
) -> InspectedSource:
    """Return a source with its dialogues. Raises BadInput."""
    files = fetch_source(source.uri, store, work)
    options = spec_options(dataset, read_labels=source.use is not Use.SELF_PLAY)
    content = read_source(files, source.format, options)
    dialogues = select_dialogues(source, content.dialogues)
    return InspectedSource(
        field, source.name, dialogues, source.use, content.warnings, content.kind
    )


def label_map_findings(dataset: DatasetSpec) -> list[Finding]:
    """Return a finding for each label of the map that is not in the label set."""
    known = {label_key(label) for label in dataset.labels} | {""}
    return [
        Finding(
            Severity.ERROR,
            f"dataset.labelMap[{name}]",
            f"`{label}` is not in `dataset.labels`, which contains {', '.join(dataset.labels)}",
        )
        for name, label in dataset.label_map.items()
        if label_key(label) not in known
    ]
