"""The HTML page of a comparison of runs. The template escapes all text from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selfemo_api.stages import STAGE_ORDER
from selfemo_api.text.formatting import duration
from selfemo_jobs.report.chart_sections import series_table
from selfemo_jobs.report.charts.lines import line_chart
from selfemo_jobs.report.comparison import ComparedRun, Comparison
from selfemo_jobs.report.page import environment
from selfemo_jobs.report.types import ChartSection

#: The facts that stand side by side.
_FACTS = ("model", "prompts", "labels read in training", "engine", "machine", "stages ran")


def render_comparison(comparison: Comparison) -> str:
    """Return a comparison as one HTML document that loads no other file.

    Parameters
    ----------
    comparison
        The comparison.
    """
    charts = _charts(comparison)
    contents = [
        ("runs", "Runs"),
        ("scores", "Scores of the best models"),
        ("gains", "Gains between runs"),
        *((chart.section_id, chart.title) for chart in charts),
        ("settings", "Settings that differ"),
        ("cost", "Cost"),
    ]
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            contents=contents,
            facts=list(_facts(comparison.runs)),
            chart_sections=charts,
            costs=list(_costs(comparison.runs)),
        )
    )


def _charts(comparison: Comparison) -> list[ChartSection]:
    """Return weighted F1 by generation, in a section for each dataset."""
    return [
        ChartSection(
            f"F1 on {name} by generation",
            "Weighted F1 of every generation, with bootstrap 95% intervals. "
            "The table has all values.",
            (line_chart(series, title=f"Weighted F1 on {name} by generation"),),
            *series_table(series),
            line_names=tuple(s.name for s in series),
        )
        for name, series in comparison.f1.items()
        if series
    ]


def _facts(runs: Sequence[ComparedRun]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each fact, and its text for each run."""
    yield "state", [run.data.state for run in runs]
    yield "recipe", [run.fact("recipe") for run in runs]
    for name in _FACTS:
        yield name, [run.fact(name) for run in runs]
    yield "best generation", ["" if run.data.best is None else str(run.data.best) for run in runs]


def _costs(runs: Sequence[ComparedRun]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each stage, and its wall time for each run; then the sums."""
    times = [{cost.stage: cost.seconds for cost in run.data.facts.costs} for run in runs]
    for stage in STAGE_ORDER:
        if any(stage.value in by_stage for by_stage in times):
            yield (
                stage.value,
                [
                    duration(by_stage[stage.value]) if stage.value in by_stage else ""
                    for by_stage in times
                ],
            )
    yield "all", [duration(run.data.facts.seconds) for run in runs]
    hours = [run.data.facts.gpu_hours for run in runs]
    yield "GPU hours", ["unknown" if h is None else f"{h:.2f}" for h in hours]
