"""F1 against seconds of work: the headline row beside on-policy training. Pure.

What an evolution has is its best generation so far; a generation that is rolled back costs its
time and leaves the best as it was. Dev's own evaluation counts on neither side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from selfemo_api.api_model import ApiModel
from selfemo_api.stages import Stage
from selfemo_study.comparison import Collected
from selfemo_study.row_record import CurvePoint, RowResult
from selfemo_study.study_config import Kind


class EqualCompute(ApiModel):
    """One on-policy run beside the headline row of the same seed, on dev."""

    row: str
    seed: int
    seconds: float
    """Of the whole on-policy run."""
    on_policy: float
    """Its best F1 on the way, its start left out."""
    on_policy_seconds: float
    """When it had that."""
    headline: float
    """The headline row's best F1 after as many seconds as the whole on-policy run took."""
    headline_seconds: float | None
    """When the headline row first had the on-policy run's best; None: not by its end."""


#: By row and seed.
Curves = Mapping[str, Mapping[int, Sequence[CurvePoint]]]


def curves_of(collected: Collected) -> Curves:
    """Return the curves of the headline row and the on-policy ones, by row and seed."""
    study = collected.study
    curves: dict[str, dict[int, list[CurvePoint]]] = {}
    for row in study.rows:
        results = {seed: done.result for seed, done in sorted(collected.of(row).items())}
        if row.name == study.headline and results:
            curves[row.name] = {seed: kept_curve(result) for seed, result in results.items()}
        elif row.kind is Kind.ON_POLICY and results:
            curves[row.name] = {seed: result.curve for seed, result in results.items()}
    return curves


def kept_curve(result: RowResult) -> list[CurvePoint]:
    """Return dev F1 of the best generation so far, against the seconds of all generations."""
    evaluate = Stage.EVALUATE.value
    spent = [
        sum(s for stage, s in g.seconds.items() if stage != evaluate) if g.generation else 0.0
        for g in result.generations
    ]
    # one that is better by less than `minDelta` is rolled back too
    kept = [(g.dev or 0.0) if g.generation in result.promoted else 0.0 for g in result.generations]
    steps = accumulate(g.steps for g in result.generations)
    return [
        CurvePoint(seconds=round(seconds, 3), steps=done, dev=f1)
        for seconds, done, f1 in zip(accumulate(spent), steps, accumulate(kept, max), strict=True)
    ]


def equal_compute(curves: Curves, headline: str) -> list[EqualCompute]:
    """Return how each on-policy run compares with the headline row of its seed, if it has one."""
    by_headline = curves.get(headline, {})
    return [
        _beside(row, seed, curve, by_headline[seed])
        for row, by_seed in curves.items()
        for seed, curve in by_seed.items()
        if row != headline and seed in by_headline
    ]


def _beside(
    row: str, seed: int, curve: Sequence[CurvePoint], headline: Sequence[CurvePoint]
) -> EqualCompute:
    end, best = curve[-1].seconds, max((p for p in curve if p.steps), key=lambda p: p.dev)
    reached = (p.seconds for p in headline if p.dev >= best.dev)
    return EqualCompute(
        row=row,
        seed=seed,
        seconds=end,
        on_policy=best.dev,
        on_policy_seconds=best.seconds,
        headline=max(p.dev for p in headline if p.seconds <= end),
        headline_seconds=next(reached, None),
    )
