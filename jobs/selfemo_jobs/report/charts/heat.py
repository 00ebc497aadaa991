"""How values are spread, generation by generation: cells, darker where more values are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from selfemo_jobs.report.charts.svg import WIDTH, box, level, number, svg, text, ticks
from selfemo_jobs.report.types import Histogram, Point

_LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 48, 20, 26, 40, 300


def spread(
    histograms: Mapping[int, Histogram], means: Sequence[Point], *, title: str, what: str
) -> Markup:
    """Return the columns, with the mean of each as a line across.

    Parameters
    ----------
    histograms
        By generation. Each column's shades are shares of its own total.
    means
        Mean by generation, where it is known.
    title, what
        What it shows, and what is counted.
    """
    filled = [
        (low, high) for h in histograms.values() for low, high, count in h.cells if count > 0
    ] or [(h.edges[0], h.edges[-1]) for h in histograms.values()]
    levels = ticks(min(low for low, _ in filled), max(high for _, high in filled), 6)
    step = (WIDTH - _LEFT - _RIGHT) / len(histograms)
    wide = min(step - 3, 120.0)

    def y(value: float) -> float:
        share = (value - levels[0]) / (levels[-1] - levels[0] or 1.0)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    densest = max((h.share(c) for h in histograms.values() for *_, c in h.cells), default=0) or 1.0
    mean = {p.generation: p.value for p in means}
    body = [level(_LEFT, WIDTH - _RIGHT, y(v), number(v)) for v in levels]
    for index, (generation, histogram) in enumerate(sorted(histograms.items())):
        middle = _LEFT + step * (index + 0.5)
        for low, high, count in histogram.cells:
            if count:
                share = histogram.share(count)
                said = (
                    f"generation {generation}, {number(low)} to {number(high)}: "
                    f"{number(count)} {what} ({100 * share:.1f} %)"
                )
                cell = box(middle - wide / 2, y(high), wide, y(low) - y(high), "cell-heat", said)
                # the square root: a few per cent are still seen beside the densest cell
                opacity = (share / densest) ** 0.5
                body.append(cell.replace("<rect ", f'<rect fill-opacity="{opacity:.2f}" ', 1))
        if generation in mean:
            at = y(mean[generation])
            body.append(
                f'<line class="mean" x1="{middle - wide / 2 - 3:.1f}" '
                f'x2="{middle + wide / 2 + 3:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>'
                + text(middle, at - 6, f"{mean[generation]:.3f}", "value", "middle")
            )
        body.append(text(middle, _HEIGHT - _BOTTOM + 20, str(generation), "tick", "middle"))
    body.append(text((_LEFT + WIDTH - _RIGHT) / 2, _HEIGHT - 3, "generation", "axis", "middle"))
    words = "; ".join(
        f"generation {g}: {h.total} {what}, half of them between {h.quantile(0.25):.2f} and "
        f"{h.quantile(0.75):.2f}" + (f", mean {mean[g]:.3f}" if g in mean else "")
        for g, h in sorted(histograms.items())
    )
    return svg(title, words + ".", body, _HEIGHT)
