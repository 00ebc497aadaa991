"""Dev F1 against seconds of work: the headline row beside on-policy training. Pure.

At any time an evolution has the best generation so far. A generation that is rolled back costs its
seconds and leaves the best as it was. The evaluation on dev is not counted on either side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

from selfemo_api.api_model import ApiModel
from selfemo_api.stages import Stage
from selfemo_study.finished_rows import StudyRows
from selfemo_study.row_result import CurvePoint, RowResult
from selfemo_study.study_config import Kind


class EqualCompute(ApiModel):
    """One on-policy run beside the headline row of the same seed, on dev."""

    row: str
    seed: int
    seconds: float
    """Seconds of the whole on-policy run."""
    on_policy: float
    """The best F1 of the on-policy run after its start."""
    on_policy_seconds: float
    """Seconds of the on-policy run until it had its best F1."""
    headline: float
    """The headline row's best F1 within the seconds of the whole on-policy run."""
    headline_seconds: float | None
    """Seconds until the headline row had the on-policy run's best F1. None: it never had it."""


#: Curves by row and seed.
Curves = Mapping[str, Mapping[int, Sequence[CurvePoint]]]


def time_curves(rows: StudyRows) -> Curves:
    """Return the curves of the headline row and of the on-policy rows, by row and seed.

    Parameters
    ----------
    rows
        The study's finished rows.
    """
    study = rows.study
    curves: dict[str, dict[int, list[CurvePoint]]] = {}
    for row in study.rows:
        results = {seed: f.result for seed, f in sorted(rows.finished_seeds(row).items())}
        if row.name == study.headline and results:
            curves[row.name] = {seed: best_so_far_curve(result) for seed, result in results.items()}
        elif row.kind is Kind.ON_POLICY and results:
            curves[row.name] = {seed: result.curve for seed, result in results.items()}
    return curves


def best_so_far_curve(result: RowResult) -> list[CurvePoint]:
    """Return dev F1 of the best generation so far, after the seconds of each generation.

    Parameters
    ----------
    result
        The result of an evolution row.
    """
    evaluate = Stage.EVALUATE.value
    spent = [
        sum(s for stage, s in g.seconds.items() if stage != evaluate) if g.generation else 0.0
        for g in result.generations
    ]
    # a generation that is better by less than `minDelta` is rolled back too
    promoted_f1 = [
        (g.dev or 0.0) if g.generation in result.promoted else 0.0 for g in result.generations
    ]
    steps = accumulate(g.steps for g in result.generations)
    return [
        CurvePoint(seconds=round(seconds, 3), steps=done, dev=f1)
        for seconds, done, f1 in zip(
            accumulate(spent), steps, accumulate(promoted_f1, max), strict=True
        )
    ]


def compare_at_equal_compute(curves: Curves, headline: str) -> list[EqualCompute]:
    """Return each on-policy run beside the headline row of its seed, where that is finished.

    Parameters
    ----------
    curves
        The curves of the headline row and of the on-policy rows.
    headline
        The name of the headline row.
    """
    by_seed_of_headline = curves.get(headline, {})
    return [
        _compare(row, seed, curve, by_seed_of_headline[seed])
        for row, by_seed in curves.items()
        for seed, curve in by_seed.items()
        if row != headline and seed in by_seed_of_headline
    ]


def _compare(
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
