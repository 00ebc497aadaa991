"""A stage's progress for Prometheus while it runs: what its log says, as gauges on ``/metrics``.

The results come through the operator when the stage has ended; this shows a loss that rises or a
rate that falls hours before. Whatever else is in the process's default registry is served too.
"""

from __future__ import annotations

import logging
import os
import re
import time

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, start_http_server

from selfemo_api.contract import ENV_METRICS_PORT
from selfemo_api.metrics import PROGRESS_MESSAGE
from selfemo_api.stages import Stage

log = logging.getLogger(__name__)


class ProgressGauges(logging.Handler):
    """Takes the figures of each progress line of the log.

    Parameters
    ----------
    stage
        The stage that runs: the gauges' label.
    registry
        Where the gauges are.
    """

    def __init__(self, stage: Stage, registry: CollectorRegistry = REGISTRY) -> None:
        super().__init__(logging.INFO)
        self._stage = stage
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Set the gauges; a line that is no progress, or no number, is nothing to it."""
        if record.msg != PROGRESS_MESSAGE:
            return
        fields = {**getattr(record, "fields", {}), "progressTimestampSeconds": time.time()}
        for name, value in fields.items():
            if isinstance(value, int | float):
                self._gauge(name).set(value)

    def _gauge(self, name: str) -> Gauge:
        found = self._gauges.get(name)
        if found is None:
            snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            help_text = f"`{name}` of the stage's last progress line"
            found = Gauge(f"selfemo_stage_{snake}", help_text, ["stage"], registry=self._registry)
            self._gauges[name] = found
        labeled: Gauge = found.labels(self._stage.value)
        return labeled


def serve_progress(stage: Stage) -> None:
    """Serve the progress, where a port is given. A port that is taken ends no stage."""
    port = os.environ.get(ENV_METRICS_PORT, "")
    if not port:
        return
    try:
        start_http_server(int(port))
    except (OSError, ValueError, OverflowError) as error:
        log.warning("%s=%s: no metrics are served: %s", ENV_METRICS_PORT, port, error)
        return
    logging.getLogger().addHandler(ProgressGauges(stage))
