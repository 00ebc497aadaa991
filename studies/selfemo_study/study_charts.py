"""The charts of the page as SVG files: on white, with the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from selfemo_api.stages import Stage, stages_of
from selfemo_study.row_result import CurvePoint
from selfemo_study.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colors that differ in lightness too.
HEADLINE, OTHER, MUTED = "#2563c9", "#c2560c", "#9aa3b0"
STAGE_COLORS = ("#2563c9", "#7fb0ff", "#127a5a", "#c2560c", "#8d3f9b")
_CURVE_COLORS = (HEADLINE, OTHER, "#127a5a", "#8d3f9b")
_STYLE: Any = {
    "svg.hashsalt": "selfemo",  # makes the ids in the file the same each time
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
#: Inches.
_WIDTH = 8.0
_COLUMNS = 4


@dataclass(frozen=True)
class GenerationCurve:
    """F1 of a row by generation."""

    name: str
    by_generation: Mapping[int, Interval]


@dataclass(frozen=True)
class GainBar:
    """The relative gain of a row with its interval."""

    name: str
    gain: Interval


def draw_generations(path: Path, curves: Sequence[GenerationCurve], headline: str) -> None:
    """Draw dev F1 by generation with its band: a small chart for each row, the headline in all.

    Parameters
    ----------
    path
        The SVG file to write.
    curves
        One curve for each row.
    headline
        The name of the headline row.
    """
    columns = min(_COLUMNS, len(curves))
    lines = -(-len(curves) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 2.1 * lines + 0.4), layout="constrained")
        grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
        main = next((curve for curve in curves if curve.name == headline), None)
        for index, axes in enumerate(grid.flat):
            if index >= len(curves):
                axes.set_visible(False)
                continue
            curve = curves[index]
            if main is not None and curve is not main:
                _draw_curve(axes, main, MUTED, band=False)
            _draw_curve(axes, curve, HEADLINE if curve is main else OTHER, band=True)
            axes.set_title(curve.name, fontsize=9)
            axes.xaxis.get_major_locator().set_params(integer=True)
        figure.supxlabel("generation", fontsize=9)
        figure.supylabel("weighted F1, dev", fontsize=9)
        _save(figure, path)


def _draw_curve(axes: Axes, curve: GenerationCurve, color: str, *, band: bool) -> None:
    points = sorted(curve.by_generation.items())
    numbers = [g for g, _ in points]
    axes.plot(numbers, [i.value for _, i in points], color=color, marker="o", markersize=3)
    if band:
        low, high = [i.low for _, i in points], [i.high for _, i in points]
        axes.fill_between(numbers, low, high, color=color, alpha=0.18, linewidth=0)


def draw_gains(path: Path, bars: Sequence[GainBar], headline: str) -> None:
    """Draw the relative gains as bars, with their intervals.

    Parameters
    ----------
    path
        The SVG file to write.
    bars
        One bar for each row.
    headline
        The name of the headline row, whose bar has another color.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 0.34 * len(bars) + 0.9), layout="constrained")
        axes = figure.subplots()
        positions = range(len(bars))
        values = [100 * b.gain.value for b in bars]
        errors = [
            [100 * max(0.0, b.gain.value - b.gain.low) for b in bars],
            [100 * max(0.0, b.gain.high - b.gain.value) for b in bars],
        ]
        colors = [HEADLINE if b.name == headline else MUTED for b in bars]
        axes.barh(positions, values, xerr=errors, color=colors, height=0.62, ecolor="#1b1f27")
        axes.axvline(0, color="#5d6675", linewidth=0.8)
        names = [f"{b.name}  {v:+.1f}%" for b, v in zip(bars, values, strict=True)]
        axes.set_yticks(positions, names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("relative gain of weighted F1 over generation 0, test, %")
        _save(figure, path)


def draw_costs(path: Path, seconds: Mapping[str, Mapping[str, float]]) -> None:
    """Draw the seconds by stage of each row's whole run.

    Parameters
    ----------
    path
        The SVG file to write.
    seconds
        Seconds by row and stage.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 0.34 * len(seconds) + 1.2), layout="constrained")
        axes = figure.subplots()
        names = list(seconds)
        ends = [0.0] * len(names)
        stages = [s.value for s in stages_of(1) if s is not Stage.PUBLISH]  # it takes seconds
        for stage, color in zip(stages, STAGE_COLORS, strict=True):
            values = [seconds[name].get(stage, 0.0) for name in names]
            axes.barh(names, values, left=ends, color=color, height=0.62, label=stage)
            ends = [a + b for a, b in zip(ends, values, strict=True)]
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("seconds of a whole run, mean over seeds")
        figure.legend(loc="outside upper center", ncols=len(STAGE_COLORS))
        _save(figure, path)


def draw_time(path: Path, curves: Mapping[str, Mapping[int, Sequence[CurvePoint]]]) -> None:
    """Draw dev F1 against the seconds of work, one line for each row and seed.

    Parameters
    ----------
    path
        The SVG file to write.
    curves
        The curves by row and seed.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure((_WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        for (name, seeds), color in zip(curves.items(), cycle(_CURVE_COLORS), strict=False):
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
