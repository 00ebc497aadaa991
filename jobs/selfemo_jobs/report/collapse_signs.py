"""The signs of collapse over the generations, as the planner defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfemo_api.collapse import Sign, label_signs, stage_signs
from selfemo_api.results import SourceScore
from selfemo_api.spec import CollapseBounds
from selfemo_jobs.report.types import Bound, Point, SignSeries
from selfemo_jobs.runtime.run_reader import StageRecord


def collapse_signs(
    records: Sequence[StageRecord],
    scores: Mapping[int, SourceScore],
    bounds: CollapseBounds | None,
    *,
    imitation: bool = False,
) -> tuple[SignSeries, ...]:
    """Return each sign of collapse for which the run has values.

    Signs of the labels are measured against generation 0, so that it has none itself.

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
    signs: dict[str, list[tuple[int, Sign]]] = {}
    known_bounds = bounds or CollapseBounds()
    for generation in sorted(scores):
        if 0 in scores and generation > 0:
            for sign in label_signs(scores[generation], scores[0], known_bounds):
                signs.setdefault(sign.name, []).append((generation, sign))
    for record in records:
        manifest = record.manifest
        for sign in stage_signs(
            manifest.stage, manifest.metrics, known_bounds, imitation=imitation
        ):
            signs.setdefault(sign.name, []).append((manifest.generation, sign))
    return tuple(
        SignSeries(
            name,
            tuple(Point(generation, sign.value) for generation, sign in values),
            Bound(values[0][1].bound, values[0][1].falls)
            if bounds and values[0][1].counts
            else None,
        )
        for name, values in signs.items()
    )
