"""The page's pictures as SVG files: light ground, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from selfemo_api.stages import STAGE_ORDER
from selfemo_study.row_record import CurvePoint
from selfemo_study.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colors that differ in lightness too.
MAIN, OTHER, SOFT = "#2563c9", "#c2560c", "#9aa3b0"
STAGE_COLOURS = ("#2563c9", "#7fb0ff", "#127a5a", "#c2560c", "#8d3f9b")
_CURVES = (MAIN, OTHER, "#127a5a", "#8d3f9b")
_STYLE: Any = {
    "svg.hashsalt": "selfemo",  # ids of the drawing's parts: else they differ each time
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5d6675",
    "axes.grid": True,
    "grid.color": "#e2e5ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_WIDTH = 8.0
_COLUMNS = 4


@dataclass(frozen=True)
class Trace:
    """F1 of a row by generation."""

    name: str
    by_generation: Mapping[int, Interval]


@dataclass(frozen=True)
class Bar:
    """A figure with its interval."""

    name: str
    value: Interval


def generations(path: Path, traces: Sequence[Trace], headline: str, what: str) -> None:
    """Draw F1 by generation with its band: one small picture a row, the headline in all."""
    columns = min(_COLUMNS, len(traces))
    lines = -(-len(traces) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 2.1 * lines + 0.4), layout="constrained")
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        main = next((t for t in traces if t.name == headline), None)
        for place, axes in enumerate(grid.flat):
            if place >= len(traces):
                axes.set_visible(False)
                continue
            trace = traces[place]
            if main is not None and trace is not main:
                _line(axes, main, SOFT, band=False)
            _line(axes, trace, MAIN if trace is main else OTHER, band=True)
            axes.set_title(trace.name, fontsize=9)
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.supxlabel("generation", fontsize=9)
        figure.supylabel(f"weighted F1, {what}", fontsize=9)
        _save(figure, path)


def _line(axes: Axes, trace: Trace, color: str, *, band: bool) -> None:
    points = sorted(trace.by_generation.items())
    numbers = [g for g, _ in points]
    axes.plot(numbers, [i.value for _, i in points], color=color, marker="o", markersize=3)
    if band:
        low, high = [i.low for _, i in points], [i.high for _, i in points]
        axes.fill_between(numbers, low, high, color=color, alpha=0.18, linewidth=0)


def gains(path: Path, bars: Sequence[Bar], headline: str) -> None:
    """Draw the relative gains as bars, with their intervals."""
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 0.34 * len(bars) + 0.9), layout="constrained")
        axes = figure.subplots()
        places = range(len(bars))
        values = [100 * b.value.value for b in bars]
        around = [
            [100 * max(0.0, b.value.value - b.value.low) for b in bars],
            [100 * max(0.0, b.value.high - b.value.value) for b in bars],
        ]
        colors = [MAIN if b.name == headline else SOFT for b in bars]
        axes.barh(places, values, xerr=around, color=colors, height=0.62, ecolor="#1b1f27")
        axes.axvline(0, color="#5d6675", linewidth=0.8)
        axes.set_yticks(
            places, [f"{b.name}  {v:+.1f} %" for b, v in zip(bars, values, strict=True)]
        )
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("relative gain of weighted F1 over generation 0, test, %")
        _save(figure, path)


def costs(path: Path, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Draw the seconds by stage of each row's whole run."""
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 0.34 * len(rows) + 1.2), layout="constrained")
        axes = figure.subplots()
        names = list(rows)
        ends = [0.0] * len(names)
        for stage, color in zip((s.value for s in STAGE_ORDER), STAGE_COLOURS, strict=True):
            values = [rows[name].get(stage, 0.0) for name in names]
            axes.barh(names, values, left=ends, color=color, height=0.62, label=stage)
            ends = [a + b for a, b in zip(ends, values, strict=True)]
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds of a whole run, mean over seeds")
        figure.legend(loc="outside upper center", ncols=len(STAGE_COLOURS))
        _save(figure, path)


def wall_time(path: Path, curves: Mapping[str, Mapping[int, Sequence[CurvePoint]]]) -> None:
    """Draw dev F1 against the seconds of work, one line a seed. `curves`: by row and seed."""
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        for (name, seeds), color in zip(curves.items(), cycle(_CURVES), strict=False):
            for index, points in enumerate(seeds.values()):
                axes.plot(
                    [p.seconds for p in points],
                    [p.dev for p in points],
                    color=color,
                    marker="o",
                    markersize=3,
                    label=name if index == 0 else None,
                )
        axes.set_xlabel("seconds of work (dev is not counted)")
        axes.set_ylabel("weighted F1, dev")
        axes.legend()
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
