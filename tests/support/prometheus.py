"""A real Prometheus with the chart's rules, for the duration of a test."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml
from tools.dashboards.expressions import RULES

from tests.integration.operator.api import wait_for
from tests.integration.operator.process import free_port

Json = dict[str, Any]


class QueryError(Exception):
    """Prometheus could not evaluate an expression."""


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    url: str

    def query(self, expr: str, at: float | None = None) -> list[Json]:
        """Return the result vector of an expression, now or at a time."""
        more = {} if at is None else {"time": f"{at:.3f}"}
        vector: list[Json] = self._get("query", query=expr, **more)["result"]
        return vector

    def values(self, expr: str, start: float, end: float) -> dict[tuple[str, ...], set[float]]:
        """Return all values of an expression in a time range, by the values of its labels."""
        return {
            tuple(v for k, v in sorted(p["metric"].items()) if k != "__name__"): {
                float(value) for _, value in p["values"]
            }
            for p in self.series(expr, start, end)
        }

    def series(self, expr: str, start: float, end: float) -> list[Json]:
        """Return the series of an expression in a time range, with a point for each second."""
        matrix: list[Json] = self._get("query_range", query=expr, start=start, end=end, step=1)[
            "result"
        ]
        return matrix

    def rules(self) -> list[Json]:
        """Return all rules, with the state of their last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def healthy(self) -> int:
        """Return the number of targets whose last scrape succeeded."""
        return sum(t["health"] == "up" for t in self._get("targets")["activeTargets"])

    def ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except (URLError, OSError):
            return False

    def _get(self, what: str, **query: object) -> Json:
        try:
            with urlopen(f"{self.url}/api/v1/{what}?{urlencode(query)}", timeout=30) as response:
                data: Json = json.loads(response.read())["data"]
        except HTTPError as error:
            raise QueryError(f"{query}: {json.loads(error.read())['error']}") from error
        return data


def _ready(server: Prometheus, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
    return server.ready()


@contextmanager
def prometheus(
    program: Path,
    folder: Path,
    targets: Sequence[str],
    namespace: str,
    stage_pods: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Prometheus]:
    """Run a server that scrapes each target every second.

    Parameters
    ----------
    program
        The path of Prometheus.
    folder
        The folder for its configuration and data.
    targets
        The ``host:port`` of each operator.
    namespace
        The namespace of the operators. Targets have the labels of the chart's ServiceMonitor.
    stage_pods
        The ``host:port`` of pods of running stages, with the namespace of each. They have the
        labels of the chart's PodMonitor.
    """
    config = {
        # a short interval, because a tiny stage takes only seconds
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in sorted(RULES.glob("*.yaml"))],
        "scrape_configs": [
            {
                "job_name": "selfemo-metrics",
                "honor_labels": True,
                "static_configs": [
                    {
                        "targets": [target],
                        "labels": {"namespace": namespace, "pod": f"operator-{number}"},
                    }
                    for number, target in enumerate(targets)
                ],
            },
            {
                "job_name": "selfemo-jobs",
                "static_configs": [
                    {
                        "targets": [target],
                        "labels": {"namespace": of_pod, "pod": f"stage-{number}"},
                    }
                    for number, (target, of_pod) in enumerate(stage_pods.items())
                ],
            },
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        str(program),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        server = Prometheus(f"http://127.0.0.1:{port}")
        wait_for(lambda: _ready(server, process, folder), "Prometheus to become ready")
        yield server
    finally:
        process.terminate()
        process.wait(30)
