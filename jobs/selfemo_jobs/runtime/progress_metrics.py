"""A stage's progress for Prometheus while it runs: the fields of its progress lines, as gauges.

The operator has the metrics of a stage only when the stage has ended. These gauges show a rising
loss or a falling rate hours before. All other metrics of the process's default registry are served
too.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, MetricsHandler

from selfemo_api.bounded_server import BoundedServer
from selfemo_api.contract import ENV_METRICS_PORT
from selfemo_api.metrics import (
    LIVE_GAUGES,
    LIVE_LABELS,
    LIVE_PREFIX,
    PROGRESS_MESSAGE,
    ProgressField,
)
from selfemo_api.stages import Stage

log = logging.getLogger(__name__)


class ProgressGauges(logging.Handler):
    """A log handler that sets a gauge for each numeric field of a progress line.

    Parameters
    ----------
    stage
        The stage that runs. It is the value of the gauges' label ``stage``.
    name
        The name of the evolution. It is the value of the gauges' label ``name``.
    registry
        The registry of the gauges.
    clock
        A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        stage: Stage,
        name: str,
        registry: CollectorRegistry = REGISTRY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.INFO)
        self._labels = (name, stage.value)
        self._registry = registry
        self._clock = clock
        self._gauges: dict[str, Gauge] = {}
        self._first: tuple[float, float, float] | None = None  # total, done and time

    def emit(self, record: logging.LogRecord) -> None:
        """Set the gauges from a progress line. All but the numbers in its fields is ignored."""
        if record.msg != PROGRESS_MESSAGE:
            return
        line: Mapping[str, Any] = getattr(record, "fields", {})
        fields = {str(name): value for name, value in line.items() if _is_number(value)}
        remaining = self._remaining_seconds(fields)
        if remaining is not None:
            fields["remainingSeconds"] = remaining
        fields["progressTimestampSeconds"] = time.time()
        for name, value in fields.items():
            self._gauge(name).set(value)

    def _remaining_seconds(self, fields: Mapping[str, float]) -> float | None:
        """Return the time until the work is done; None before the second line.

        The first line is the start: a continued training does not begin at 0.
        """
        done, total = fields.get(ProgressField.DONE), fields.get(ProgressField.TOTAL)
        if done is None or total is None:
            return None
        if done >= total:
            return 0.0
        now = self._clock()
        if self._first is None or self._first[0] != total or self._first[1] > done:
            self._first = (total, done, now)
        _, start, began = self._first
        return (total - done) * (now - began) / (done - start) if done > start else None

    def _gauge(self, field: str) -> Gauge:
        gauge = self._gauges.get(field)
        if gauge is None:
            snake = re.sub(r"(?<!^)(?=[A-Z])", "_", field).lower()
            default = (snake, f"`{field}` of the stage's last progress line")
            name, help_text = LIVE_GAUGES.get(field, default)
            gauge = Gauge(LIVE_PREFIX + name, help_text, LIVE_LABELS, registry=self._registry)
            self._gauges[field] = gauge
        labeled: Gauge = gauge.labels(*self._labels)
        return labeled


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def serve_progress(stage: Stage, name: str) -> None:
    """Serve the progress if a port is set. A port that is in use does not end the stage.

    Parameters
    ----------
    stage
        The stage that runs.
    name
        The name of the evolution.
    """
    port = os.environ.get(ENV_METRICS_PORT, "")
    if not port:
        return
    try:
        BoundedServer(int(port), MetricsHandler).start()
    except (OSError, ValueError, OverflowError) as error:
        log.warning("%s=%s: no metrics are served: %s", ENV_METRICS_PORT, port, error)
        return
    logging.getLogger().addHandler(ProgressGauges(stage, name))
