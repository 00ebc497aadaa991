"""The page: figures in, HTML out. All text from models and files is escaped by the template."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from selfemo_api.results import SourceScore
from selfemo_api.text.formatting import duration, share
from selfemo_jobs.report.charts.svg import number
from selfemo_jobs.report.charts_content import figures
from selfemo_jobs.report.types import ReportData


def render(data: ReportData) -> str:
    """Return the page as one HTML document that loads nothing."""
    environment = Environment(
        loader=PackageLoader("selfemo_jobs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["share"] = share
    return environment.get_template("report.html.j2").render(
        data=data,
        cards=_cards(data),
        figures=figures(data),
        funnel=max(data.funnels, default=None),
        kept=max(data.kept_labels, default=None),
    )


def _cards(data: ReportData) -> Sequence[tuple[str, str, str]]:
    """Return the figures at the top: name, value, remark."""
    scored = [row for row in data.generations if row.score]
    cards = []
    best = next((row for row in scored if row.generation == data.best), None)
    if best and best.score:
        low, high = best.score.weighted_f1_low, best.score.weighted_f1_high
        interval = (
            f"95 % interval {low:.3f} to {high:.3f}" if low is not None and high is not None else ""
        )
        cards.append(
            (f"best F1, generation {best.generation}", f"{best.score.weighted_f1:.4f}", interval)
        )
    if best and best.score and len(scored) > 1:
        cards.append(_gain(best.score.weighted_f1, scored[0].score))
    if scored:
        count = len(scored) - (1 if scored[0].generation == 0 else 0)
        kept = sum(row.outcome in {"better", "promoted", "continued"} for row in scored)
        cards.append(("generations", str(count), f"{kept} kept"))
    total = sum(sum(stages.values()) for stages in data.seconds.values())
    if total:
        cards.append(("time at work", duration(total), "all stages, waiting left out"))
    return cards


def _gain(best: float, first: SourceScore | None) -> tuple[str, str, str]:
    start = first.weighted_f1 if first else best
    return "gain over the start", f"{100 * (best - start):+.2f}", f"points; from {start:.4f}"
