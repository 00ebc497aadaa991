"""The section about expression: how often responses are read as the intended emotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfemo_api.results import ExpressionChange, ExpressionScore
from selfemo_jobs.report.charts.bars import dumbbell_chart
from selfemo_jobs.report.charts.lines import line_chart
from selfemo_jobs.report.types import Change, ChartSection, Point, ReportData, Series
from selfemo_jobs.runtime.run_reader import StageRecord

_RESPONSES, _HUMANS = "responses", "human turns"
_HEAD = (
    "generation",
    "classified as intended",
    "over generation 0",
    "over the best before",
    "consistency",
    "distinct-2",
    "words",
    "emotion named",
    "well formed",
)


def expression_scores(records: Sequence[StageRecord]) -> dict[int, ExpressionScore]:
    """Return the expression of each generation that has one.

    Parameters
    ----------
    records
        The finished stages of the run.
    """
    return {
        record.manifest.generation: record.manifest.expression
        for record in records
        if record.manifest.expression is not None
    }


def expression_section(data: ReportData) -> ChartSection | None:
    """Return the figures of expression by generation, with a chart by emotion.

    Parameters
    ----------
    data
        The content of the page.

    Returns
    -------
    ChartSection or None
        None if the responder did not play.
    """
    scores = data.expression
    if not scores:
        return None
    series = _series(scores)
    charts = [line_chart(series, title="Responses classified as intended, by generation")]
    captions = ["by generation"]
    changes = _by_emotion(data)
    if changes:
        first, last = "generation 0", f"generation {max(scores)}"
        title = "Responses classified as intended, by emotion"
        charts.append(dumbbell_chart(changes, title=title, first=first, last=last))
        captions.append("by emotion")
    last_score = scores[max(scores)]
    limit = (
        f" It classifies {last_score.human:.3f} of {last_score.human_turns} human turns as their "
        "own label, as the mean over the emotions, for comparison."
        if last_score.human is not None
        else ""
    )
    return ChartSection(
        "Expression",
        f"The responder answered {last_score.responses // max(1, len(data.labels))} contexts of "
        f"{last_score.source} once for each emotion. The frozen baseline model classified the "
        "responses. The first column is the fraction classified as the intended emotion, with a "
        f"bootstrap 95% interval over dialogues.{limit} All generations answer the same contexts, "
        "so the intervals of the changes are paired. No decision depends on this.",
        tuple(charts),
        _HEAD,
        tuple(_row(generation, score) for generation, score in sorted(scores.items())),
        line_names=tuple(s.name for s in series),
        captions=tuple(captions) if len(charts) > 1 else (),
        wide=len(charts) > 1,
    )


def _series(scores: Mapping[int, ExpressionScore]) -> list[Series]:
    """Return the fraction of responses, and of human turns, by generation."""
    ordered = sorted(scores.items())
    responses = Series(
        _RESPONSES,
        tuple(
            Point(generation, score.as_intended, score.as_intended_low, score.as_intended_high)
            for generation, score in ordered
        ),
    )
    humans = tuple(Point(g, score.human) for g, score in ordered if score.human is not None)
    return [responses, *([Series(_HUMANS, humans)] if humans else [])]


def _by_emotion(data: ReportData) -> list[Change]:
    """Return the share of each emotion in generation 0 and in the last one."""
    first, last = data.expression.get(0), data.expression[max(data.expression)]
    if first is None or first is last:
        return []
    shares = (first.as_intended_by_label, last.as_intended_by_label)
    return [
        Change(label, before, after)
        for label, before, after in zip(data.labels, *shares, strict=False)
    ]


def _row(generation: int, score: ExpressionScore) -> tuple[str, ...]:
    """Return a row of the table."""
    low, high = score.as_intended_low, score.as_intended_high
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return (
        str(generation),
        f"{score.as_intended:.4f}{interval}",
        _change(score.over_baseline),
        _change(score.over_best),
        f"{score.consistency:.3f}",
        f"{score.diversity:.3f}",
        f"{score.words:.1f}",
        f"{score.named:.3f}",
        f"{score.well_formed:.3f}",
    )


def _change(change: ExpressionChange | None) -> str:
    """Return a change with its paired interval; empty if there is none."""
    if change is None:
        return ""
    if change.low is None or change.high is None:
        return f"{change.change:+.4f}"
    return f"{change.change:+.4f} [{change.low:+.3f}, {change.high:+.3f}]"
