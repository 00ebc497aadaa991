"""The page's pictures, each with a line on what it means and with its values as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from selfemo_api.stages import STAGE_ORDER
from selfemo_api.text.formatting import duration, share
from selfemo_jobs.report.charts.bars import changes, columns, stacked
from selfemo_jobs.report.charts.heat import spread
from selfemo_jobs.report.charts.lines import line_chart
from selfemo_jobs.report.charts.svg import number
from selfemo_jobs.report.types import Change, Figure, Point, ReportData, Series, Stack

#: How a generation that was not built upon is drawn.
_MARKS = {"not better": "hollow", "rolled back": "hollow", "collapsed": "crossed"}
_KEPT = "kept"


def figures(data: ReportData) -> list[Figure]:
    """Return the pictures for which there are values, in the page's order."""
    makers: Sequence[Callable[[ReportData], Figure | None]] = (
        _f1, _emotions, _rewards, _means, _signs, _funnel, _seconds, _tokens, _entropy,
    )  # fmt: skip
    return [figure for maker in makers if (figure := maker(data))]


def _f1(data: ReportData) -> Figure | None:
    if not data.f1:
        return None
    marks = {r.generation: _MARKS[r.outcome] for r in data.generations if r.outcome in _MARKS}
    weighed = (
        " Its figures are those of a source with the shares of emotions in "
        "`evaluation.labelPrior`; its confusion matrix is as counted."
        if data.weighed
        else ""
    )
    goal = " The dashed line is the goal." if data.goal is not None else ""
    return Figure(
        "Weighted F1",
        f"By generation and evaluation source, with bootstrap 95 % intervals; {data.source} "
        f"decides what is best.{weighed} A hollow mark was not kept, a cross collapsed.{goal}",
        (
            line_chart(
                data.f1,
                title="Weighted F1 by generation",
                goal=data.goal,
                marks=marks,
                best=data.best,
            ),
        ),
        *_series_table(data.f1),
    )


def _emotions(data: ReportData) -> Figure | None:
    """First and best generation, emotion by emotion, the frequent ones first."""
    if not data.label_f1 or data.best is None:
        return None
    column = data.evaluated.index(data.best)
    support = data.support or (0,) * len(data.labels)
    known = [
        (count, Change(label, values[0], after))
        for label, values, count in zip(data.labels, data.label_f1, support, strict=False)
        if values[0] is not None and (after := values[column]) is not None
    ]
    rows = [change for _, change in sorted(known, key=lambda pair: -pair[0])]
    if not rows:
        return None
    first, best = f"generation {data.evaluated[0]}", f"generation {data.best} (best)"
    return Figure(
        "What was gained by emotion",
        f"F1 of each emotion on {data.source}, the most frequent first: where the run helped, "
        "and which emotions paid for it.",
        (changes(rows, title="F1 by emotion, first and best", first=first, last=best),),
        ("emotion", first, best),
        tuple((r.name, f"{r.before:.4f}", f"{r.after:.4f}") for r in rows),
    )


def _rewards(data: ReportData) -> Figure | None:
    if not data.histograms:
        return None
    means = next((s.points for s in data.rewards if s.name == "reward"), ())
    rows = tuple(
        (f"generation {g}", number(h.total), *(f"{h.quantile(q):.3f}" for q in (0.1, 0.25, 0.5,
                                                                              0.75, 0.9)))
        for g, h in sorted(data.histograms.items())
    )  # fmt: skip
    return Figure(
        "Rewards",
        "How the candidates' rewards are spread; the line is the mean. One narrow band means that "
        "groups no longer differ and there is nothing to learn from.",
        (spread(data.histograms, means, title="Rewards by generation", what="candidates"),),
        ("", "candidates", "10 %", "25 %", "median", "75 %", "90 %"),
        rows,
    )


def _means(data: ReportData) -> Figure | None:
    if not data.rewards:
        return None
    return Figure(
        "Reward and consistency",
        "Means over the groups of each generation's self-play, as the frozen judge scored them; "
        "consistency is how far a group agrees.",
        (line_chart(data.rewards, title="Mean reward and consistency by generation"),),
        *_series_table(data.rewards),
    )


def _entropy(data: ReportData) -> Figure | None:
    if not data.entropy:
        return None
    title = "Normalized label entropy by generation"
    return Figure(
        "Label entropy",
        "Of the predicted labels, and of the labels that the flywheel kept; 1 is an even spread, "
        "0 is one label for everything.",
        (line_chart(data.entropy, title=title, within=(0.0, 1.0)),),
        *_series_table(data.entropy),
    )


def _signs(data: ReportData) -> Figure | None:
    if not data.signs:
        return None
    drawings = tuple(
        line_chart([Series("", sign.points)], title=_large(sign.name), bound=sign.bound, height=210)
        for sign in data.signs
    )
    bounded = any(sign.bound for sign in data.signs)
    tinted = " The tinted area is collapse: the run stops and keeps its best." if bounded else ""
    return Figure(
        "Signs of collapse",
        "The known ends of label-free training: one emotion for everything, another distribution "
        f"than at the start, the same answer each time, groups that are all alike.{tinted}",
        drawings,
        *_series_table([Series(sign.name, sign.points) for sign in data.signs]),
        captions=tuple(_large(sign.name) for sign in data.signs),
        wide=True,
    )


def _funnel(data: ReportData) -> Figure | None:
    """What became of the groups: kept, or taken by which filter."""
    if not data.funnels:
        return None
    filters = list(dict.fromkeys(s.name for steps in data.funnels.values() for s in steps))
    parts = [_KEPT, *filters]
    stacks = []
    for generation, steps in sorted(data.funnels.items()):
        values = {step.name: float(step.before - step.after) for step in steps}
        stacks.append(Stack(f"generation {generation}", {_KEPT: float(steps[-1].after), **values}))

    def kept(stack: Stack) -> str:
        return f"{share(stack.values[_KEPT], sum(stack.values.values())):.1f} % kept"

    return Figure(
        "Flywheel",
        "What became of the scored groups: kept for training, or taken out by a filter. Too few "
        "kept starves training; too many lets noise in.",
        (stacked(stacks, parts, title="Groups by what became of them", note=kept),),
        ("", *parts),
        tuple((s.name, *(number(s.values.get(p, 0.0)) for p in parts)) for s in stacks),
        legend=tuple(parts),
    )


def _seconds(data: ReportData) -> Figure | None:
    if not data.seconds:
        return None
    parts = [stage.value for stage in STAGE_ORDER]
    stacks = [Stack(f"generation {g}", by) for g, by in sorted(data.seconds.items())]
    return Figure(
        "Time by stage",
        "Wall time of the attempt that finished each stage; waiting is left out.",
        (stacked(stacks, parts, title="Seconds by stage and generation", say=duration),),
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


def _tokens(data: ReportData) -> Figure | None:
    made = [
        (points, name)
        for points, name in (
            (data.generated, "generated by self-play"),
            (data.trained, "trained on"),
        )
        if points
    ]
    if not made:
        return None
    return Figure(
        "Tokens",
        "What a generation costs, and what is left of it to learn from.",
        tuple(columns(points, title=f"Tokens {name} by generation") for points, name in made),
        *_series_table([Series(name, points) for points, name in made], number),
        captions=tuple(_large(name) for _, name in made),
    )


def _series_table(
    series: Sequence[Series], say: Callable[[float], str] = "{:.4f}".format
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return head and rows: generations down, series across."""
    generations = sorted({p.generation for s in series for p in s.points})
    at = [{p.generation: p for p in s.points} for s in series]

    def cell(p: Point | None) -> str:
        if p is None:
            return ""
        interval = (
            f" [{p.low:.3f}, {p.high:.3f}]" if p.low is not None and p.high is not None else ""
        )
        return say(p.value) + interval

    return (
        ("generation", *(s.name for s in series)),
        tuple((str(g), *(cell(points.get(g)) for points in at)) for g in generations),
    )


def _large(name: str) -> str:
    return name[:1].upper() + name[1:]
