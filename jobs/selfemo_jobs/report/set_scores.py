"""The scores of evaluation datasets that are compared by sets of labels, and their section."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selfemo_api.results import SourceScore
from selfemo_api.stages import Stage
from selfemo_jobs.report.charts.lines import line_chart
from selfemo_jobs.report.types import ChartSection, Point, ReportData, Series, SetScores
from selfemo_jobs.runtime.run_reader import StageRecord

#: The figures of the chart: the name, and how it is read from a score.
_FIGURES: tuple[tuple[str, Callable[[SourceScore], float | None]], ...] = (
    ("micro F1", lambda score: score.micro_f1),
    ("samples F1", lambda score: score.samples_f1),
    ("Jaccard", lambda score: score.jaccard),
    ("subset accuracy", lambda score: score.accuracy),
)


def set_scores(
    records: Sequence[StageRecord], selection_dataset: str | None
) -> tuple[SetScores, ...]:
    """Return the scores of each dataset that is compared by sets, the selection dataset first.

    Parameters
    ----------
    records
        The finished stages of the run.
    selection_dataset
        The name of the selection dataset, or None.
    """
    scores: dict[str, dict[int, SourceScore]] = {}
    labels: dict[str, float] = {}
    for record in records:
        manifest = record.manifest
        if manifest.stage is not Stage.EVALUATE:
            continue
        for score in manifest.scores:
            if score.jaccard is not None:
                scores.setdefault(score.source, {})[manifest.generation] = score
        for name, report in (manifest.report.get("sources") or {}).items():
            if isinstance(report, dict) and "labelsPerUtterance" in report:
                labels[name] = float(report["labelsPerUtterance"])
    names = sorted(scores, key=lambda name: (name != selection_dataset, name))
    return tuple(SetScores(name, scores[name], labels.get(name)) for name in names)


def label_sets_section(data: ReportData) -> ChartSection | None:
    """Return the figures of sets: a chart for each dataset, and a table of all of them.

    Parameters
    ----------
    data
        The content of the page.

    Returns
    -------
    ChartSection or None
        None if no dataset is compared by sets.
    """
    if not data.set_scores:
        return None
    means = ", ".join(
        f"{s.labels_per_utterance:.2f} in {s.dataset}"
        for s in data.set_scores
        if s.labels_per_utterance is not None
    )
    gold = f" The mean number of gold labels of an utterance is {means}." if means else ""
    title = "Scores of sets of labels by generation"
    return ChartSection(
        "Sets of labels",
        "Datasets whose utterances have several labels are compared by sets. Micro F1 counts all "
        "labels together; samples F1 and Jaccard are means over the utterances. Subset accuracy is "
        f"the share of answers that name exactly the gold labels.{gold}",
        tuple(line_chart(_series(s), title=title) for s in data.set_scores),
        ("dataset, generation", "weighted F1", *(name for name, _ in _FIGURES), "labels an answer"),
        tuple(row for s in data.set_scores for row in _rows(s)),
        line_names=tuple(name for name, _ in _FIGURES),
        captions=tuple(s.dataset for s in data.set_scores),
        wide=len(data.set_scores) > 1,
    )


def _series(scores: SetScores) -> list[Series]:
    """Return each figure by generation."""
    return [
        Series(
            name,
            tuple(
                Point(generation, value)
                for generation, score in sorted(scores.scores.items())
                if (value := read(score)) is not None
            ),
        )
        for name, read in _FIGURES
    ]


def _rows(scores: SetScores) -> list[tuple[str, ...]]:
    """Return a row of the table for each generation."""
    return [
        (
            f"{scores.dataset}, {generation}",
            f"{score.weighted_f1:.4f}",
            *("" if (value := read(score)) is None else f"{value:.4f}" for _, read in _FIGURES),
            "" if score.labels_per_answer is None else f"{score.labels_per_answer:.2f}",
        )
        for generation, score in sorted(scores.scores.items())
    ]
