"""The operator's metrics for Prometheus: the series of each evolution, and its own."""

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

from selfemo_operator.controller.caches.cache import Cache
from selfemo_operator.controller.controller import RESULTS
from selfemo_operator.controller.metrics.exposition import Exposition
from selfemo_operator.controller.objects.names import Key


class OperatorMetrics:
    """All metrics of one operator.

    Parameters
    ----------
    cache
        The cache of the evolutions.
    resync_age
        A function that returns the seconds since the last resync, or None before the first. It is
        called for each scrape.
    queue_length
        A function that returns the number of evolutions in the work queue. It is called for each
        scrape.
    resync_seconds
        The seconds between two resyncs.
    problems
        A function that returns, by namespace, why it is not watched (empty if it is). It is called
        for each scrape.
    rejected_statuses
        A function that returns the number of evolutions whose status the API server rejects. It is
        called for each scrape.
    own_namespace
        The namespace of the operator. It represents all namespaces if all are watched: Prometheus
        would drop an empty label.
    """

    def __init__(
        self,
        cache: Cache,
        resync_age: Callable[[], float | None],
        queue_length: Callable[[], int],
        resync_seconds: float = 60.0,
        problems: Callable[[], dict[str, str]] = dict,
        rejected_statuses: Callable[[], int] = int,
        own_namespace: str = "",
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # one series more per counter
        self._exposition = Exposition(cache)
        self._own_namespace = own_namespace
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "selfemo_operator_reconciles",
            "Reconciles by result",
            ["result"],
            registry=self.registry,
        )
        for result in RESULTS:
            self.reconciles.labels(result)  # from 0, so that the first one counts as an increase
        self.durations = Histogram(
            "selfemo_operator_reconcile_duration_seconds",
            "Duration of a reconcile",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
            registry=self.registry,
        )
        self.requests = Counter(
            "selfemo_operator_api_requests",
            "Requests to the API server by verb and HTTP status; code 0 means no response",
            ["verb", "code"],
            registry=self.registry,
        )
        self.leader = self._gauge("leader", "1 while this operator is the leader")
        age = self._gauge(
            "resync_age_seconds",
            "Seconds since the last resync; -1 before the first one",
        )
        age.set_function(lambda: -1.0 if (seconds := resync_age()) is None else seconds)
        period = self._gauge("resync_period_seconds", "Seconds between two resyncs")
        period.set(resync_seconds)
        queue = self._gauge("queue_length", "Evolutions that are queued or being reconciled")
        queue.set_function(lambda: float(queue_length()))
        unreadable = self._gauge(
            "unreadable_evolutions", "Evolutions without metrics, because they cannot be read"
        )
        unreadable.set_function(lambda: float(self._exposition.unreadable))
        rejected = self._gauge(
            "rejected_statuses", "Evolutions whose status the API server rejects"
        )
        rejected.set_function(lambda: float(rejected_statuses()))
        self._problems = problems
        self.watched = Gauge(
            "selfemo_operator_namespace_watched",
            "1 while the leader can list and watch a namespace, otherwise 0; if it watches all "
            "namespaces, there is one series with the operator's own namespace",
            ["namespace"],
            registry=self.registry,
        )
        build = Gauge(
            "selfemo_operator_build_info",
            "Always 1; the operator's version",
            ["version"],
            registry=self.registry,
        )
        build.labels(version("selfemo")).set(1)
        ProcessCollector(registry=self.registry)
        self.documented = (
            self.reconciles,
            self.durations,
            self.requests,
            self.leader,
            age,
            period,
            queue,
            unreadable,
            rejected,
            self.watched,
            build,
        )
        """The operator's own metrics, in the order of the reference."""

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"selfemo_operator_{name}", text, registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return b"".join(self.parts())

    def parts(self) -> list[bytes]:
        """Return the text in parts: that of thousands of evolutions has tens of MB."""
        parts = self._exposition.parts()  # first: it counts the unreadable ones
        for namespace, problem in self._problems().items():
            self.watched.labels(namespace or self._own_namespace).set(not problem)
        return [*parts, generate_latest(self.registry)]

    def on_reconciled(self, key: Key, result: str, seconds: float) -> None:
        """Count a reconcile, and render the series of its evolution.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        result
            The result of the reconcile, one of :data:`RESULTS`.
        seconds
            The duration of the reconcile.
        """
        self.reconciles.labels(result).inc()
        self.durations.observe(seconds)
        self._exposition.refresh(key)

    def on_response(self, verb: str, code: int) -> None:
        """Count a request to the API server by its verb and HTTP status (0: no response)."""
        self.requests.labels(verb, str(code)).inc()
