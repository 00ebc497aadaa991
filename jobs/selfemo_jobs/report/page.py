"""The page: figures in, HTML out. All text from models and files is escaped by the template."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from selfemo_api.results import SourceScore
from selfemo_api.stages import STAGE_ORDER
from selfemo_jobs.report import charts
from selfemo_jobs.report.types import ReportData

_DROPPED = {"not better", "rolled back", "collapsed"}


def render(data: ReportData) -> str:
    """Return the page as one HTML document that loads nothing."""
    environment = Environment(
        loader=PackageLoader("selfemo_jobs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = charts.number
    environment.filters["duration"] = duration
    environment.filters["share"] = share
    return environment.get_template("report.html.j2").render(
        data=data,
        cards=_cards(data),
        drawn=_charts(data),
        stages=[stage.value for stage in STAGE_ORDER],
        slowest=max((sum(s.values()) for s in data.seconds.values()), default=0.0),
        funnel=max(data.funnels, default=None),
        kept=max(data.kept_labels, default=None),
    )


def duration(seconds: float) -> str:
    """Return seconds as a person says them: ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share(part: float, whole: float) -> float:
    """Return a part in per cent of the whole; 0 of nothing."""
    return 100.0 * part / whole if whole else 0.0


def _charts(data: ReportData) -> dict[str, object]:
    hollow = [row.generation for row in data.generations if row.outcome in _DROPPED]
    drawn: dict[str, object] = dict.fromkeys(("f1", "rewards", "entropy", "histogram"))
    if data.f1:
        drawn["f1"] = charts.line_chart(
            data.f1, title="Weighted F1 by generation", goal=data.goal, hollow=hollow
        )
    if data.rewards:
        drawn["rewards"] = charts.line_chart(
            data.rewards, title="Mean reward and consistency by generation"
        )
    if data.entropy:
        drawn["entropy"] = charts.line_chart(
            data.entropy, title="Normalised label entropy by generation", within=(0.0, 1.0)
        )
    if data.histograms:
        last = max(data.histograms)
        edges, counts = data.histograms[last]
        drawn["histogram"] = charts.histogram(edges, counts, title=f"Rewards of generation {last}")
    return drawn


def _cards(data: ReportData) -> Sequence[tuple[str, str, str]]:
    """Return the figures at the top: name, value, remark."""
    scored = [row for row in data.generations if row.score]
    cards = []
    best = next((row for row in scored if row.generation == data.best), None)
    if best and best.score:
        low, high = best.score.weighted_f1_low, best.score.weighted_f1_high
        interval = f"95 % interval {low:.3f} to {high:.3f}" if low and high else ""
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
