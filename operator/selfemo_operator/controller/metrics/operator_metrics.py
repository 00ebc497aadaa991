"""What Prometheus sees: the series of each evolution that is there, and the operator's own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from selfemo_operator.controller.cache import Cache
from selfemo_operator.controller.controller import RESULTS
from selfemo_operator.controller.metrics.exposition import Exposition
from selfemo_operator.controller.objects.names import Key


class OperatorMetrics:
    """All that one operator shows.

    Parameters
    ----------
    view
        The picture whose evolutions are shown.
    resync_age, queue_length
        Asked at each scrape.
    resync_seconds
        How often everything is listed.
    """

    def __init__(
        self,
        cache: Cache,
        resync_age: Callable[[], float | None],
        queue_length: Callable[[], int],
        resync_seconds: float = 60.0,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter
        self._exposition = Exposition(cache)
        self.registry = CollectorRegistry()
        self.passes = Counter(
            "selfemo_operator_reconciles",
            "Passes over evolutions by how they ended",
            ["result"],
            registry=self.registry,
        )
        for result in RESULTS:
            self.passes.labels(result)  # from 0: else the first of a kind would be no increase
        self.seconds = Histogram(
            "selfemo_operator_reconcile_duration_seconds",
            "Duration of a pass",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=self.registry,
        )
        self.requests = Counter(
            "selfemo_operator_api_requests",
            "Requests to the API server but kopf's own, by verb and status; code 0: no answer",
            ["verb", "code"],
            registry=self.registry,
        )
        self.leader = self._gauge("leader", "1 while this operator works")
        age = self._gauge(
            "resync_age_seconds",
            "Seconds since everything was last listed; -1 before the first time",
        )
        age.set_function(lambda: _or(resync_age(), -1.0))
        period = self._gauge("resync_period_seconds", "How often everything is to be listed")
        period.set(resync_seconds)
        queue = self._gauge("queue_length", "Evolutions that wait for a pass or are in one")
        queue.set_function(lambda: float(queue_length()))
        unreadable = self._gauge(
            "unreadable_evolutions", "Evolutions without metrics, since their resource is odd"
        )
        unreadable.set_function(lambda: float(self._exposition.unreadable))
        build = Gauge("selfemo_operator_build_info", "Version", ["version"], registry=self.registry)
        build.labels(version("selfemo")).set(1)
        ProcessCollector(registry=self.registry)
        self.own = (
            self.passes,
            self.seconds,
            self.requests,
            self.leader,
            age,
            period,
            queue,
            unreadable,
            build,
        )

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"selfemo_operator_{name}", text, registry=self.registry)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        evolutions = self._exposition.text().encode()  # first: it counts the unreadable ones
        return evolutions + generate_latest(self.registry)

    def ended_pass(self, key: Key, result: str, seconds: float) -> None:
        """Count a pass, and see to the series of its evolution."""
        self.passes.labels(result).inc()
        self.seconds.observe(seconds)
        self._exposition.refresh(key)

    def answered(self, verb: str, code: int) -> None:
        """Count a request to the API server."""
        self.requests.labels(verb, str(code)).inc()


def _or(value: float | None, other: float) -> float:
    return other if value is None else value
