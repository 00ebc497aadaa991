"""What the pods of two running stages serve, for the tests of the dashboards."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest

from selfemo_api.metrics import PROGRESS_MESSAGE
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.progress_metrics import ProgressGauges

#: The progress lines of each stage. Together they have all fields.
LINES: Mapping[Stage, Sequence[Mapping[str, float]]] = {
    Stage.TRAIN: (
        {"done": 100, "total": 400, "loss": 0.05, "gradNorm": 0.9, "learningRate": 1e-5},
        {
            "done": 200,
            "total": 400,
            "loss": 0.03,
            "gradNorm": 0.7,
            "learningRate": 1e-5,
            "kl": 0.002,
            "entropy": 1.2,
            "clipLow": 0.01,
            "clipHigh": 0.02,
        },
    ),
    Stage.SELF_PLAY: ({"done": 8, "total": 64, "tokensPerSecond": 5000.0},),
    Stage.EVALUATE: ({"done": 64, "total": 64, "weightedF1": 0.5},),
}
SECONDS_BETWEEN_LINES = 600.0


def served_by(stage: Stage, name: str = "demo") -> str:
    """Return the text that the pod of a stage serves after its progress lines.

    Parameters
    ----------
    stage
        The stage.
    name
        The name of the evolution.
    """
    times = (number * SECONDS_BETWEEN_LINES for number in range(100))
    registry, logger = CollectorRegistry(), logging.Logger("stage")
    logger.addHandler(ProgressGauges(stage, name, registry, lambda: next(times)))
    for fields in LINES[stage]:
        logger.info(PROGRESS_MESSAGE, extra={"fields": fields})
    return generate_latest(registry).decode()
