"""The collapse indicators over the generations, as the planner defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfemo_api.collapse import CollapseIndicator, label_indicators, stage_indicators
from selfemo_api.results import SourceScore
from selfemo_api.spec import CollapseBounds
from selfemo_jobs.report.types import Bound, IndicatorSeries, Point
from selfemo_jobs.runtime.run_reader import StageRecord


def collapse_indicators(
    records: Sequence[StageRecord],
    scores: Mapping[int, SourceScore],
    bounds: CollapseBounds | None,
    *,
    imitation: bool = False,
) -> tuple[IndicatorSeries, ...]:
    """Return each collapse indicator for which the run has values.

    Indicators of the labels are measured against generation 0, so that it has none itself.

    Parameters
    ----------
    records
        The finished stages of the run.
    scores
        The scores on the selection dataset, by generation.
    bounds
        The bounds of the evolution. If they are None, the series have no bound.
    imitation
        Whether training imitates the consensus of recognizer groups. The share of these groups
        without variance then has no bound.
    """
    indicators: dict[str, list[tuple[int, CollapseIndicator]]] = {}
    known_bounds = bounds or CollapseBounds()
    for generation in sorted(scores):
        if 0 in scores and generation > 0:
            for indicator in label_indicators(scores[generation], scores[0], known_bounds):
                indicators.setdefault(indicator.name, []).append((generation, indicator))
    for record in records:
        manifest = record.manifest
        for indicator in stage_indicators(
            manifest.stage, manifest.metrics, known_bounds, imitation=imitation
        ):
            indicators.setdefault(indicator.name, []).append((manifest.generation, indicator))
    return tuple(
        IndicatorSeries(
            name,
            tuple(Point(generation, indicator.value) for generation, indicator in values),
            Bound(values[0][1].bound, values[0][1].falls)
            if bounds and values[0][1].counts
            else None,
        )
        for name, values in indicators.items()
    )
