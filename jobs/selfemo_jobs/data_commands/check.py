"""``selfemo data check``: what dialogues are like, and what is wrong with them."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.schema.validation import load_evolution
from selfemo_api.spec import DatasetSpec
from selfemo_api.text.control_characters import json_text, printable_lines
from selfemo_api.text.formatting import share
from selfemo_jobs.data_commands.options import (
    data_format,
    environment_store,
    read_options,
    set_data_volumes,
    source_uri,
)
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.inspect_dataset import inspect_dataset
from selfemo_jobs.datasets.inspection import (
    DataReport,
    Finding,
    InspectedSource,
    Severity,
    SourceStatistics,
    Spread,
    inspect_dialogues,
    sort_findings,
)
from selfemo_jobs.datasets.load import read_source
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store import Store, open_store

_HEADINGS = {
    Severity.ERROR: "Errors",
    Severity.UNAVAILABLE: "Not checked",
    Severity.WARNING: "Warnings",
}


def check(arguments: argparse.Namespace) -> int:
    """Print the report on the sources, and return the exit code.

    Parameters
    ----------
    arguments
        The parsed options of the command.

    Raises
    ------
    BadInput
        If an option is wrong, or the tokenizer cannot be read.
    """
    set_data_volumes(arguments.data)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        evolution = _evolution(arguments)
        if evolution is None:
            store = environment_store(work)
            report = _check_sources(arguments, store, work, _token_counter(arguments, store, work))
        else:
            storage = evolution.spec.storage
            store = open_store(storage.model_copy(update={"uri": source_uri(storage.uri)}))
            length = _token_counter(arguments, store, work)
            dataset = _with_absolute_uris(evolution.spec.dataset)
            report = inspect_dataset(dataset, store, work, length=length)
    if arguments.output == "json":
        sys.stdout.write(json_text(report.to_json(), indent=2) + "\n")
    else:
        sys.stdout.write(printable_lines("\n".join(_lines(report))) + "\n")
    if report.of(Severity.ERROR):
        return ExitCode.BAD_INPUT
    return ExitCode.UNAVAILABLE if report.of(Severity.UNAVAILABLE) else ExitCode.OK


def _evolution(arguments: argparse.Namespace) -> EmotionEvolution | None:
    """Return the evolution of a YAML file; None if the sources are dialogues."""
    files = [text for text in arguments.source if re.search(r"\.ya?ml$", text)]
    if not files:
        return None
    names = ("format", "labels", "columns", "label_map")
    options = [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name)]
    if len(arguments.source) > 1 or options:
        others = options[0] if options else "another source"
        raise BadInput(f"{files[0]} already defines its sources: omit {others}")
    if not Path(files[0]).is_file():
        raise BadInput(f"{files[0]} does not exist")
    return load_evolution(Path(files[0]))


def _with_absolute_uris(dataset: DatasetSpec) -> DatasetSpec:
    """Return a dataset in which `file://./` is the current folder, as `selfemo run` has it."""
    sources = [s.model_copy(update={"uri": source_uri(s.uri)}) for s in dataset.sources]
    return dataset.model_copy(update={"sources": sources})


def _check_sources(
    arguments: argparse.Namespace, store: Store, work: Path, length: Callable[[str], int] | None
) -> DataReport:
    """Return the report on the sources of the command line. Raises BadInput."""
    options = read_options(arguments)
    sources, problems = [], []
    for text in dict.fromkeys(arguments.source):
        try:
            files = fetch_source(source_uri(text), store, work)
            content = read_source(files, data_format(arguments), options)
        except BadInput as error:
            problems.append(Finding(Severity.ERROR, text, str(error)))
        except Unavailable as error:
            problems.append(Finding(Severity.UNAVAILABLE, text, str(error)))
        else:
            dialogues, warnings = content.dialogues, content.warnings
            sources.append(InspectedSource(text, text, dialogues, None, warnings, content.kind))
    report = inspect_dialogues(sources, options.labels, length=length)
    return replace(report, findings=sort_findings([*problems, *report.findings]))


def _token_counter(
    arguments: argparse.Namespace, store: Store, work: Path
) -> Callable[[str], int] | None:
    """Return a function that counts the tokens of a text; None without `--model`."""
    if not arguments.model:
        return None
    from selfemo_jobs.models.model_places import find_model
    from selfemo_jobs.stages.check.light_tokenizer import read_tokenizer

    folder = find_model(source_uri(arguments.model), None, store, work).folder
    tokenizer = read_tokenizer(folder)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _lines(report: DataReport) -> Iterator[str]:
    """Yield the lines of a report for people."""
    for figures in report.sources:
        yield from _source_lines(figures, report.unit)
        yield ""
    for severity, heading in _HEADINGS.items():
        findings = report.of(severity)
        if findings:
            yield f"{heading}:"
            yield from (f"  {finding}" for finding in findings)
            yield ""
    counts = ((len(report.sources), "source read"), (len(report.of(Severity.ERROR)), "error"))
    warnings = (len(report.of(Severity.WARNING)), "warning")
    yield ", ".join(_count(number, noun) for number, noun in (*counts, warnings))


def _source_lines(figures: SourceStatistics, unit: str) -> Iterator[str]:
    """Yield the lines of a source."""
    facts = ", ".join(filter(None, (figures.use, figures.format)))
    yield f"{figures.name} ({facts})" if facts else figures.name
    yield _line("dialogues", f"{figures.dialogues}" + _repeated(figures.repeated_dialogues))
    yield _line("turns", f"{figures.turns}; per dialogue {_spread(figures.turns_per_dialogue)}")
    yield _line("speakers", f"{figures.speakers}")
    yield _line(unit, f"per turn {_spread(figures.length)}")
    labels = [f"{x} {_share(n, figures.turns)}" for x, n in figures.labels.items()]
    if labels:
        yield _line("labels", ", ".join(labels))
        yield _line("unlabeled", _share(figures.unlabeled, figures.turns))
    else:
        yield _line("labels", "not read" if figures.use == "SelfPlay" else "none")
    if figures.several_labels:
        yield _line("several", f"{_share(figures.several_labels, figures.turns)} with two or more")
    if figures.odd_characters:
        odd = ", ".join(f"{name}: {n}" for name, n in figures.odd_characters.items())
        yield _line("odd", odd)


def _line(name: str, text: str) -> str:
    return f"  {name:<10} {text}"


def _spread(spread: Spread) -> str:
    return f"{spread.least} to {spread.most}, mean {spread.mean:g}, median {spread.median:g}"


def _share(part: int, whole: int) -> str:
    return f"{part} ({share(part, whole):.1f}%)"


def _repeated(count: int) -> str:
    return f", {count} of them duplicates" if count else ""


def _count(number: int, noun: str) -> str:
    plural = {"source read": "sources read"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
