"""The HTML page of a report. The template escapes all text from models and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from selfemo_api.text.formatting import duration, share
from selfemo_jobs.report.chart_sections import chart_sections
from selfemo_jobs.report.charts.svg import format_number
from selfemo_jobs.report.examples import CONFIDENT
from selfemo_jobs.report.gains import OTHER_UTTERANCES, ShownGain
from selfemo_jobs.report.types import ChartSection, GenerationRow, ReportData

#: Outcomes of generations on which later generations are built.
_ACCEPTED = {"better", "promoted", "continued"}
#: A card at the top of the page: name, value and remark.
Card = tuple[str, str, str]


def environment() -> Environment:
    """Return the templates of the report, with their filters. All text is escaped."""
    templates = Environment(
        loader=PackageLoader("selfemo_jobs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["number"] = format_number
    templates.filters["share"] = share
    templates.filters["duration"] = duration
    return templates


def render(data: ReportData) -> str:
    """Return the report as one HTML document that loads no other file.

    Parameters
    ----------
    data
        The content of the page.
    """
    charts = chart_sections(data)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            data=data,
            cards=list(_cards(data)),
            contents=list(_contents(data, charts)),
            chart_sections=charts,
            last_funnel=max(data.funnels, default=None),
            last_kept=max(data.kept_labels, default=None),
            confident=CONFIDENT,
        )
    )


def _contents(data: ReportData, charts: Sequence[ChartSection]) -> Iterator[tuple[str, str]]:
    """Yield the id and the title of each section of the page, in the order of the page."""
    changes = data.changes
    yield from (
        (section_id, title)
        for section_id, title, is_shown in (
            ("what-was-run", "What was run", data.facts.facts),
            ("scores", "Scores", data.datasets),
            *((chart.section_id, chart.title, True) for chart in charts),
            ("fixed-and-broken", "Fixed and broken answers", changes),
            ("confident-mistakes", "Confident mistakes", changes and changes.confident_mistakes),
            ("repeated-mistakes", "Repeated mistakes", changes and changes.mistakes),
            ("replies", "Replies side by side", data.replies),
            ("generations", "Generations", data.generations),
            ("f1-by-emotion", "F1 by emotion", data.label_f1),
            ("confusion-matrix", "Confusion matrix", data.confusions),
            ("flywheel-step-by-step", "Flywheel, step by step", data.funnels),
            ("sample-dialogues", "Sample dialogues", data.samples),
            ("stage-metrics", "Stage metrics", data.stage_metrics),
            ("provenance", "Provenance", True),
        )
        if is_shown
    )


def _cards(data: ReportData) -> Iterator[Card]:
    """Yield the cards at the top of the page."""
    evaluated = [row for row in data.generations if row.score]
    best, compared = data.row(data.best), data.row(data.compared)
    for name in data.datasets if best else ():
        score = best.scores.get(name) if best else None
        if score:
            low, high = score.weighted_f1_low, score.weighted_f1_high
            interval = (
                "" if low is None or high is None else f"95% interval {low:.3f} to {high:.3f}"
            )
            yield f"F1 on {name}, generation {data.best}", f"{score.weighted_f1:.4f}", interval
    if compared:
        yield from _gain_cards(data, compared)
    if evaluated:
        count = len(evaluated) - (1 if evaluated[0].generation == 0 else 0)
        accepted = sum(row.outcome in _ACCEPTED for row in evaluated)
        yield "generations", str(count), f"{accepted} accepted"
    if data.facts.seconds:
        hours = data.facts.gpu_hours
        remark = f"{hours:.2f} GPU hours; " if hours else ""
        yield "run time", duration(data.facts.seconds), f"{remark}all stages, without waiting"


def _gain_cards(data: ReportData, row: GenerationRow) -> Iterator[Card]:
    """Yield the gain of the compared generation over the baseline on each dataset."""
    role = "" if row.generation == data.best else f" of generation {row.generation}, not promoted"
    for name in data.datasets:
        gain = row.gains.get(name)
        if gain:
            yield f"gain on {name}{role}", f"{gain.value:+.4f}", _interval(gain)


def _interval(gain: ShownGain) -> str:
    """Return the interval of a gain as the remark of a card."""
    if gain.other_utterances:
        return OTHER_UTTERANCES
    if gain.low is None or gain.high is None:
        return "over generation 0"
    return f"over generation 0, 95% interval {gain.low:+.3f} to {gain.high:+.3f}"
