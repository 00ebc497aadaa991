"""A real Prometheus on this machine, with the chart's rules, for the length of a test."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
    """A server that answers."""

    url: str

    def query(self, expr: str, at: float | None = None) -> list[Json]:
        """Return the result vector of an expression now, or at a time."""
        more = {} if at is None else {"time": f"{at:.3f}"}
        found: list[Json] = self._get("query", query=expr, **more)["result"]
        return found

    def values(self, expr: str, start: float, end: float) -> dict[tuple[str, ...], set[float]]:
        """Return every value that an expression has had: by the values of its labels."""
        points = self._get("query_range", query=expr, start=start, end=end, step=1)["result"]
        return {
            tuple(v for k, v in sorted(p["metric"].items()) if k != "__name__"): {
                float(value) for _, value in p["values"]
            }
            for p in points
        }

    def rules(self) -> list[Json]:
        """Return all rules with what became of their last evaluation."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def healthy(self) -> int:
        """Return how many targets were scraped well the last time."""
        return sum(t["health"] == "up" for t in self._get("targets")["activeTargets"])

    def ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    def _get(self, what: str, **query: object) -> Json:
        try:
            with urlopen(f"{self.url}/api/v1/{what}?{urlencode(query)}", timeout=30) as answer:
                found: Json = json.loads(answer.read())["data"]
        except HTTPError as error:
            raise QueryError(f"{query}: {json.loads(error.read())['error']}") from error
        return found


def _ready(server: Prometheus, process: subprocess.Popen[bytes], folder: Path) -> bool:
    assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
    return server.ready()


@contextmanager
def prometheus(
    program: Path, folder: Path, targets: Sequence[str], namespace: str
) -> Iterator[Prometheus]:
    """Run a server that scrapes each target every second.

    Parameters
    ----------
    targets
        ``host:port`` of each operator.
    namespace
        The operators' own; their labels are as the chart's ServiceMonitor would have them.
    """
    config = {
        # ten times as often as people do: a tiny stage lasts seconds
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
            }
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
        found = Prometheus(f"http://127.0.0.1:{port}")
        wait_for(lambda: _ready(found, process, folder), "Prometheus to become ready")
        yield found
    finally:
        process.terminate()
        process.wait(30)
