"""The signs of collapse over the generations, by the planner's own definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selfemo_api.collapse import Sign, label_signs, stage_signs
from selfemo_api.results import SourceScore
from selfemo_api.spec import CollapseBounds
from selfemo_jobs.report.run_files import StageRecord
from selfemo_jobs.report.types import Bound, Point, SignSeries


def signs_of(
    records: Sequence[StageRecord],
    scores: Mapping[int, SourceScore],
    bounds: CollapseBounds | None,
) -> tuple[SignSeries, ...]:
    """Return each sign that the run has figures of.

    Parameters
    ----------
    records
        The run's finished stages.
    scores
        Of the deciding source, by generation.
    bounds
        Of the evolution; None draws none.
    """
    found: dict[str, list[tuple[int, Sign]]] = {}
    asked = bounds or CollapseBounds()
    for number in sorted(scores):
        if 0 in scores:
            for sign in label_signs(scores[number], scores[0], asked):
                found.setdefault(sign.name, []).append((number, sign))
    for record in records:
        for sign in stage_signs(record.manifest.stage, record.manifest.metrics, asked):
            found.setdefault(sign.name, []).append((record.manifest.generation, sign))
    return tuple(
        SignSeries(
            name,
            tuple(Point(number, sign.value) for number, sign in signs),
            Bound(signs[0][1].bound, signs[0][1].falls) if bounds else None,
        )
        for name, signs in found.items()
    )
