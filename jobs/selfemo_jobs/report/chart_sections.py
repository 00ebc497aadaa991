"""The sections of the page that have charts, each with an explanation and a table of its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selfemo_api.stages import STAGE_ORDER
from selfemo_api.text.formatting import duration, share
from selfemo_jobs.report.charts.bars import column_chart, dumbbell_chart, stacked_bars
from selfemo_jobs.report.charts.heat import heatmap
from selfemo_jobs.report.charts.lines import line_chart
from selfemo_jobs.report.charts.svg import format_number
from selfemo_jobs.report.expression import expression_section
from selfemo_jobs.report.set_scores import label_sets_section
from selfemo_jobs.report.types import Change, ChartSection, Point, ReportData, Series, Stack
from selfemo_jobs.report.warm_start import warm_start_section

#: The mark of a generation on which no later generation is built, by its outcome.
_MARKS = {"not better": "hollow", "rolled back": "hollow", "collapsed": "crossed"}
_KEPT = "kept"
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def chart_sections(data: ReportData) -> list[ChartSection]:
    """Return the sections for which the run has values, in the order of the page.

    Parameters
    ----------
    data
        The content of the page.
    """
    makers: Sequence[Callable[[ReportData], ChartSection | None]] = (
        _f1, warm_start_section, label_sets_section, _emotions, expression_section, _rewards,
        _means, _indicators, _funnel, _seconds, _tokens, _entropy,
    )  # fmt: skip
    return [section for maker in makers if (section := maker(data))]


def _f1(data: ReportData) -> ChartSection | None:
    """Return weighted F1 by generation and evaluation dataset."""
    if not data.f1:
        return None
    marks = {r.generation: _MARKS[r.outcome] for r in data.generations if r.outcome in _MARKS}
    weighting = (
        " Its scores are weighted to the label prior in `dataset.labelPrior`; its confusion "
        "matrix has unweighted counts."
        if data.weighted_to_prior
        else ""
    )
    goal = " The dashed line is the goal." if data.goal is not None else ""
    return ChartSection(
        "Weighted F1",
        "By generation and evaluation dataset, with bootstrap 95% intervals. "
        f"{data.selection_dataset} is the selection dataset, which decides the best generation."
        f"{weighting} Hollow marks are rolled back or not better; crosses are collapsed.{goal}",
        (
            line_chart(
                data.f1,
                title="Weighted F1 by generation",
                goal=data.goal,
                marks=marks,
                best=data.best,
            ),
        ),
        *series_table(data.f1),
        line_names=data.datasets,
    )


def _emotions(data: ReportData) -> ChartSection | None:
    """Return F1 of each emotion in generation 0 and the compared one, frequent emotions first."""
    if not data.label_f1 or data.compared is None:
        return None
    column = data.evaluated.index(data.compared)
    support = data.support or (0,) * len(data.labels)
    known = [
        (count, Change(label, values[0], after))
        for label, values, count in zip(data.labels, data.label_f1, support, strict=False)
        if values[0] is not None and (after := values[column]) is not None
    ]
    rows = [change for _, change in sorted(known, key=lambda pair: -pair[0])]
    if not rows:
        return None
    role = "best" if data.compared == data.best else "not promoted"
    first, last = "generation 0", f"generation {data.compared} ({role})"
    return ChartSection(
        "F1 change by emotion",
        f"F1 of each emotion on {data.selection_dataset}, the most frequent emotion first. It "
        "shows which emotions the run improved, and which became worse.",
        (dumbbell_chart(rows, title="F1 by emotion, before and after",
                        first=first, last=last),),
        ("emotion", first, last),
        tuple((r.name, f"{r.before:.4f}", f"{r.after:.4f}") for r in rows),
    )  # fmt: skip


def _rewards(data: ReportData) -> ChartSection | None:
    """Return the distribution of the rewards by generation."""
    if not data.histograms:
        return None
    means = next((s.points for s in data.rewards if s.name == "reward"), ())
    rows = tuple(
        (
            f"generation {generation}",
            format_number(histogram.total),
            *(f"{histogram.quantile(q):.3f}" for q in _QUANTILES),
        )
        for generation, histogram in sorted(data.histograms.items())
    )
    return ChartSection(
        "Rewards",
        "The distribution of the candidates' rewards; the line is the mean. One narrow band means "
        "that the groups no longer differ: there is nothing to learn.",
        (heatmap(data.histograms, means, title="Rewards by generation", unit="candidates"),),
        ("", "candidates", "10%", "25%", "median", "75%", "90%"),
        rows,
    )


def _means(data: ReportData) -> ChartSection | None:
    """Return mean reward and mean consistency by generation."""
    if not data.rewards:
        return None
    return ChartSection(
        "Reward and consistency",
        "Means over the groups of each generation's self-play, as the frozen judge scored them. "
        "Consistency is the agreement within a group.",
        (line_chart(data.rewards, title="Mean reward and consistency by generation"),),
        *series_table(data.rewards),
        line_names=tuple(s.name for s in data.rewards),
    )


def _entropy(data: ReportData) -> ChartSection | None:
    """Return the entropy of the predicted and of the kept labels by generation."""
    if not data.entropy:
        return None
    title = "Normalized label entropy by generation"
    return ChartSection(
        "Label entropy",
        "The normalized entropy of the predicted labels, and of the labels that the flywheel kept. "
        "1 means that all labels are equally frequent, 0 that there is only one label.",
        (line_chart(data.entropy, title=title, within=(0.0, 1.0)),),
        *series_table(data.entropy),
        line_names=tuple(s.name for s in data.entropy),
    )


def _indicators(data: ReportData) -> ChartSection | None:
    """Return a chart for each collapse indicator."""
    if not data.indicators:
        return None
    charts = tuple(
        line_chart(
            [Series("", indicator.points)],
            title=_capitalized(indicator.name),
            bound=indicator.bound,
            height=210,
        )
        for indicator in data.indicators
    )
    bounded = any(indicator.bound for indicator in data.indicators)
    tinted = (
        " A value in the tinted area is a collapse: the run stops, and its best generation stays "
        "the model to use."
        if bounded
        else ""
    )
    return ChartSection(
        "Collapse indicators",
        "The known failures of training without labels: one emotion for all utterances, a label "
        "distribution far from generation 0's, the same response each time, and groups without "
        f"variance.{tinted}",
        charts,
        *series_table([Series(indicator.name, indicator.points) for indicator in data.indicators]),
        captions=tuple(_capitalized(indicator.name) for indicator in data.indicators),
        wide=True,
    )


def _funnel(data: ReportData) -> ChartSection | None:
    """Return the groups that the flywheel kept, and those that each filter removed."""
    if not data.funnels:
        return None
    filters = list(dict.fromkeys(s.name for steps in data.funnels.values() for s in steps))
    parts = [_KEPT, *filters]
    stacks = []
    for generation, steps in sorted(data.funnels.items()):
        values = {step.name: float(step.before - step.after) for step in steps}
        stacks.append(Stack(f"generation {generation}", {_KEPT: float(steps[-1].after), **values}))

    def kept_share(stack: Stack) -> str:
        return f"{share(stack.values[_KEPT], sum(stack.values.values())):.1f}% kept"

    return ChartSection(
        "Flywheel",
        "The scored groups that were kept for training, and those that each filter removed. If too "
        "few groups are kept, training has too little data. If too many are kept, it has too much "
        "noise.",
        (stacked_bars(stacks, parts, title="Groups by outcome", note=kept_share),),
        ("", *parts),
        tuple((s.name, *(format_number(s.values.get(p, 0.0)) for p in parts)) for s in stacks),
        legend=tuple(parts),
    )


def _seconds(data: ReportData) -> ChartSection | None:
    """Return the wall time by stage and generation."""
    if not data.seconds:
        return None
    parts = [stage.value for stage in STAGE_ORDER]
    stacks = [Stack(f"generation {g}", by) for g, by in sorted(data.seconds.items())]
    return ChartSection(
        "Time by stage",
        "Wall time of the attempt that finished each stage, without waiting.",
        (
            stacked_bars(
                stacks, parts, title="Seconds by stage and generation", format_value=duration
            ),
        ),
        ("", *parts, "all"),
        tuple(
            (
                s.name,
                *(duration(s.values[p]) if p in s.values else "" for p in parts),
                duration(sum(s.values.values())),
            )
            for s in stacks
        ),
        legend=tuple(parts),
    )


def _tokens(data: ReportData) -> ChartSection | None:
    """Return the generated and the trained tokens by generation."""
    series = [
        Series(name, points)
        for points, name in (
            (data.generated_tokens, "generated by self-play"),
            (data.trained_tokens, "used in training"),
        )
        if points
    ]
    if not series:
        return None
    return ChartSection(
        "Tokens",
        "The tokens that a generation generates, and those of them that training uses.",
        tuple(column_chart(s.points, title=f"Tokens {s.name}, by generation") for s in series),
        *series_table(series, format_number),
        captions=tuple(_capitalized(s.name) for s in series),
    )


def series_table(
    series: Sequence[Series], format_value: Callable[[float], str] = "{:.4f}".format
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return head and rows of a table: the generations are rows, the series are columns.

    Parameters
    ----------
    series
        The series.
    format_value
        Returns a value as text. An interval has three decimals.
    """
    generations = sorted({p.generation for s in series for p in s.points})
    columns = [{p.generation: p for p in s.points} for s in series]

    def cell(point: Point | None) -> str:
        if point is None:
            return ""
        interval = (
            f" [{point.low:.3f}, {point.high:.3f}]"
            if point.low is not None and point.high is not None
            else ""
        )
        return format_value(point.value) + interval

    return (
        ("generation", *(s.name for s in series)),
        tuple((str(g), *(cell(points.get(g)) for points in columns)) for g in generations),
    )


def _capitalized(name: str) -> str:
    """Return a name with its first letter in upper case."""
    return name[:1].upper() + name[1:]
