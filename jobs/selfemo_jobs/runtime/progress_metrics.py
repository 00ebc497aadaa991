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

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, start_http_server

from selfemo_api.contract import ENV_METRICS_PORT
from selfemo_api.metrics import PROGRESS_MESSAGE
from selfemo_api.stages import Stage

log = logging.getLogger(__name__)


class ProgressGauges(logging.Handler):
    """A log handler that sets a gauge for each numeric field of a progress line.

    Parameters
    ----------
    stage
        The stage that runs. It is the value of the gauges' label ``stage``.
    registry
        The registry of the gauges.
    """

    def __init__(self, stage: Stage, registry: CollectorRegistry = REGISTRY) -> None:
        super().__init__(logging.INFO)
        self._stage = stage
        self._registry = registry
        self._gauges: dict[str, Gauge] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Set the gauges from a progress line. All but the numbers in its fields is ignored."""
        if record.msg != PROGRESS_MESSAGE:
            return
        fields = {**getattr(record, "fields", {}), "progressTimestampSeconds": time.time()}
        for name, value in fields.items():
            if isinstance(value, int | float):
                self._gauge(name).set(value)

    def _gauge(self, name: str) -> Gauge:
        gauge = self._gauges.get(name)
        if gauge is None:
            snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
            help_text = f"`{name}` of the stage's last progress line"
            gauge = Gauge(f"selfemo_stage_{snake}", help_text, ["stage"], registry=self._registry)
            self._gauges[name] = gauge
        labeled: Gauge = gauge.labels(self._stage.value)
        return labeled


def serve_progress(stage: Stage) -> None:
    """Serve the progress if a port is set. A port that is in use does not end the stage."""
    port = os.environ.get(ENV_METRICS_PORT, "")
    if not port:
        return
    try:
        start_http_server(int(port))
    except (OSError, ValueError, OverflowError) as error:
        log.warning("%s=%s: no metrics are served: %s", ENV_METRICS_PORT, port, error)
        return
    logging.getLogger().addHandler(ProgressGauges(stage))
