"""A heatmap of distributions by generation: a cell with more values is darker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from selfemo_jobs.report.charts.svg import WIDTH, box, format_number, grid_line, svg, text, ticks
from selfemo_jobs.report.types import Histogram, Point

#: Units of the drawing: the margins, and the height of the chart.
_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 48, 20, 26, 40, 300
#: The most columns that have their numbers written: each takes about 40 units.
_MOST_NUMBERS = 16


def heatmap(
    histograms: Mapping[int, Histogram], means: Sequence[Point], *, title: str, unit: str
) -> Markup:
    """Return a chart with a column of cells for each generation, and its mean as a line.

    Parameters
    ----------
    histograms
        The distributions by generation. The shade of a cell is its share of the own generation.
    means
        The mean of each generation. Generations without a mean have no line.
    title
        The name of the chart.
    unit
        The name of what the histograms count, in the plural.
    """
    filled = [
        (low, high) for h in histograms.values() for low, high, count in h.cells if count > 0
    ] or [(h.edges[0], h.edges[-1]) for h in histograms.values()]
    levels = ticks(min(low for low, _ in filled), max(high for _, high in filled), 6)
    step = (WIDTH - _LEFT - _RIGHT) / len(histograms)
    width = min(max(step - 3, 0.6 * step), 120.0)  # of many generations, the gaps are narrow
    # as many numbers as there is room for
    numbered = set(sorted(histograms)[:: max(1, math.ceil(len(histograms) / _MOST_NUMBERS))])

    def y(value: float) -> float:
        share = (value - levels[0]) / (levels[-1] - levels[0] or 1.0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    densest = max((h.share(c) for h in histograms.values() for *_, c in h.cells), default=0) or 1.0
    mean = {p.generation: p.value for p in means}
    body = [grid_line(_LEFT, WIDTH - _RIGHT, y(v), format_number(v)) for v in levels]
    for index, (generation, histogram) in enumerate(sorted(histograms.items())):
        middle = _LEFT + step * (index + 0.5)
        for low, high, count in histogram.cells:
            if count:
                share = histogram.share(count)
                tooltip = (
                    f"generation {generation}, {format_number(low)} to {format_number(high)}: "
                    f"{format_number(count)} {unit} ({100 * share:.1f}%)"
                )
                top, size = y(high), y(low) - y(high)
                cell = box(middle - width / 2, top, width, size, "cell-heat", tooltip)
                # The square root keeps a few percent visible beside the densest cell.
                opacity = (share / densest) ** 0.5
                body.append(cell.replace("<rect ", f'<rect fill-opacity="{opacity:.2f}" ', 1))
        if generation in mean:
            height, more = y(mean[generation]), min(3.0, step / 4)
            body.append(
                f'<line class="mean" x1="{middle - width / 2 - more:.1f}" '
                f'x2="{middle + width / 2 + more:.1f}" y1="{height:.1f}" y2="{height:.1f}"/>'
            )
            if generation in numbered:
                body.append(text(middle, height - 6, f"{mean[generation]:.3f}", "value", "middle"))
        if generation in numbered:
            body.append(text(middle, _HEIGHT - _BOTTOM + 20, str(generation), "tick", "middle"))
    body.append(text((_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 3, "generation", "axis", "middle"))
    description = "; ".join(
        f"generation {g}: {h.total} {unit}, half of them between {h.quantile(0.25):.2f} and "
        f"{h.quantile(0.75):.2f}" + (f", mean {mean[g]:.3f}" if g in mean else "")
        for g, h in sorted(histograms.items())
    )
    return svg(title, description + ".", body, _HEIGHT)
