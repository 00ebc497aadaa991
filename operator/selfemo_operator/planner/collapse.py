"""Tells when an evolution has collapsed: the known end of label-free training."""

from __future__ import annotations

from selfemo_api.collapse import label_signs, stage_signs
from selfemo_api.results import SourceScore, StageResult
from selfemo_api.spec import CollapseBounds
from selfemo_api.stages import Stage


def collapse_of(
    result: StageResult, baseline: SourceScore | None, bounds: CollapseBounds
) -> str | None:
    """Return how a result is past the bounds, in words, or None where all is well.

    Parameters
    ----------
    result
        Of SelfPlay (response diversity), Score (zero-variance share) or Evaluate (label entropy and
        divergence from generation 0 on the selecting source, which stands first in `scores`).
    baseline
        Generation 0 on the selecting source.
    bounds
        `spec.evolution.collapse`.
    """
    signs = stage_signs(result.stage, result.metrics, bounds)
    if result.stage is Stage.EVALUATE and result.scores and baseline is not None:
        signs = label_signs(result.scores[0], baseline, bounds)
    return next((str(sign) for sign in signs if sign.crossed), None)
