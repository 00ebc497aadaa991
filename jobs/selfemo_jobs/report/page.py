"""The HTML page of a report. The template escapes all text from models and files."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from selfemo_api.results import SourceScore
from selfemo_api.text.formatting import duration, share
from selfemo_jobs.report.chart_sections import chart_sections
from selfemo_jobs.report.charts.svg import format_number
from selfemo_jobs.report.types import ReportData

#: Outcomes of generations on which later generations are built.
_ACCEPTED = {"better", "promoted", "continued"}


def render(data: ReportData) -> str:
    """Return the report as one HTML document that loads no other file.

    Parameters
    ----------
    data
        The content of the page.
    """
    environment = Environment(
        loader=PackageLoader("selfemo_jobs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["share"] = share
    return environment.get_template("report.html.j2").render(
        data=data,
        cards=_cards(data),
        chart_sections=chart_sections(data),
        last_funnel=max(data.funnels, default=None),
        last_kept=max(data.kept_labels, default=None),
    )


def _cards(data: ReportData) -> Sequence[tuple[str, str, str]]:
    """Return name, value and remark of each card at the top of the page."""
    evaluated = [row for row in data.generations if row.score]
    cards = []
    best = next((row for row in evaluated if row.generation == data.best), None)
    if best and best.score:
        low, high = best.score.weighted_f1_low, best.score.weighted_f1_high
        interval = (
            f"95 % interval {low:.3f} to {high:.3f}" if low is not None and high is not None else ""
        )
        cards.append(
            (f"best F1, generation {best.generation}", f"{best.score.weighted_f1:.4f}", interval)
        )
    if best and best.score and len(evaluated) > 1:
        cards.append(_gain_card(best.score.weighted_f1, evaluated[0].score))
    if evaluated:
        count = len(evaluated) - (1 if evaluated[0].generation == 0 else 0)
        accepted = sum(row.outcome in _ACCEPTED for row in evaluated)
        cards.append(("generations", str(count), f"{accepted} accepted"))
    total = sum(sum(stages.values()) for stages in data.seconds.values())
    if total:
        cards.append(("run time", duration(total), "all stages, without waiting"))
    return cards


def _gain_card(best: float, first: SourceScore | None) -> tuple[str, str, str]:
    """Return the card with the gain of the best F1 over the first."""
    start = first.weighted_f1 if first else best
    return "gain over the baseline", f"{100 * (best - start):+.2f}", f"points, from {start:.4f}"
