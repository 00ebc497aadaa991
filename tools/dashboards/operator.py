"""The Operator dashboard: leader election, reconciles, and requests to the API server."""

from __future__ import annotations

from typing import Any

from tools.dashboards.board_types import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Board,
    Kind,
    Link,
    Panel,
    Query,
    Row,
    Variable,
)
from tools.dashboards.variables import CLUSTER, LOGS_SOURCE, cluster_variable, logs_link

_IN = f'namespace="$namespace", {CLUSTER}'
_LOGS = logs_link("Logs of the operator", '{namespace="$namespace", container="operator"}')
_TO_FLEET = Link("Fleet", "/d/selfemo-fleet?${__url_time_range}")
#: Metrics of the process have no name of selfemo's. A target with the build metric is an operator.
_OURS = f"and on (job, instance) selfemo_operator_build_info{{{_IN}}}"
_BUCKETS = f"selfemo_operator_reconcile_duration_seconds_bucket{{{_IN}}}"
_DURATIONS = f"rate({_BUCKETS}[$__rate_interval])"


def _panel(
    kind: Kind, title: str, text: str, unit: str, queries: list[Query], **more: Any
) -> Panel:
    return Panel(kind, title, text, unit, queries, _TO_FLEET, **more)


def _stat(title: str, text: str, unit: str, expr: str, **more: Any) -> Panel:
    legend = more.pop("legend", title)
    queries = [Query(expr, legend)]
    return _panel(Kind.STAT, title, text, unit, queries, width=3, height=4, **more)


def _own(name: str) -> str:
    return f"selfemo_operator_{name}{{{_IN}}}"


#: 1 for each namespace that the leader watches, 0 for those that it cannot watch. The label
#: `namespace` is the watched one; where all are watched, it is the operator's.
_WATCHED = (
    f'min by (namespace) (selfemo_operator_namespace_watched{{namespace=~".*", {CLUSTER}}} '
    f"and on (cluster, job, instance) ({_own('leader')} == 1))"
)


def _rate(name: str) -> str:
    return f"rate({_own(name)}[$__rate_interval])"


OPERATOR = Board(
    "selfemo-operator",
    "selfemo / Operator",
    "The operator: leader election, reconciles, errors, requests, and its process.",
    [
        LOGS_SOURCE,
        cluster_variable("selfemo_operator_build_info"),
        Variable(
            "namespace",
            "Namespace",
            f"label_values(selfemo_operator_build_info{{{CLUSTER}}}, namespace)",
        ),
    ],
    [
        Row(
            "Now",
            [
                _stat(
                    "Leaders",
                    "Operators that hold the Lease. Without a leader, evolutions make no progress.",
                    "none",
                    f"sum({_own('leader')})",
                    states={0: ("none", RED), 1: ("one", GREEN)},
                ),
                _stat(
                    "Replicas",
                    "Operators that respond to scrapes.",
                    "none",
                    f"count({_own('build_info')})",
                ),
                _stat(
                    "Version",
                    "Versions of the running operators.",
                    "none",
                    f"count by (version) ({_own('build_info')})",
                    legend="{{version}}",
                ),
                _stat(
                    "Resync age",
                    "Time since the leader's last resync.",
                    "s",
                    f"max({_own('resync_age_seconds')} and {_own('leader')} == 1)",
                    thresholds=[(180.0, ORANGE), (300.0, RED)],
                ),
                _stat(
                    "Queue",
                    "Evolutions that are queued or being reconciled.",
                    "none",
                    f"sum({_own('queue_length')})",
                    thresholds=[(100.0, ORANGE)],
                ),
                _stat(
                    "Unreadable",
                    "Evolutions without metrics, because their resource cannot be read.",
                    "none",
                    f"max({_own('unreadable_evolutions')})",
                    thresholds=[(1.0, ORANGE)],
                ),
                _stat(
                    "Rejected",
                    "Evolutions whose status the API server rejects. They make no progress.",
                    "none",
                    f"max({_own('rejected_statuses')})",
                    thresholds=[(1.0, RED)],
                ),
                _stat(
                    "Not watched",
                    "Namespaces that the leader cannot list or watch. Their evolutions make no "
                    "progress.",
                    "none",
                    f"count({_WATCHED} == 0) or vector(0)",
                    thresholds=[(1.0, RED)],
                ),
            ],
        ),
        Row(
            "Reconciles",
            [
                _panel(
                    Kind.LINES,
                    "Reconciles by result",
                    "Reconciles per second. A `conflict` (another client wrote first) is harmless.",
                    "ops",
                    [Query(f"sum by (result) ({_rate('reconciles_total')})", "{{result}}")],
                    bounds=(0.0, None),
                ),
                _panel(
                    Kind.LINES,
                    "Reconcile duration",
                    "Median and 99th percentile of the reconcile duration.",
                    "s",
                    [
                        Query(f"histogram_quantile({q}, sum by (le) ({_DURATIONS}))", name)
                        for q, name in ((0.5, "p50"), (0.99, "p99"))
                    ],
                    bounds=(0.0, None),
                ),
                _panel(
                    Kind.LINES,
                    "Failed reconciles",
                    "Failed reconciles within 15 minutes. The alert fires above five.",
                    "short",
                    [
                        Query(
                            f"namespace_job:selfemo_operator_reconcile_errors:increase15m{{{_IN}}}",
                            "{{job}}",
                        )
                    ],
                    bounds=(0.0, None),
                ),
                _panel(
                    Kind.HEATMAP,
                    "Durations",
                    "Number of reconciles by duration.",
                    "s",
                    [Query(f"sum by (le) (increase({_BUCKETS}[$__rate_interval]))", "{{le}}")],
                    width=12,
                ),
                _panel(
                    Kind.STATES,
                    "Leader",
                    "Which operator holds the Lease.",
                    "none",
                    [Query(f"max by (pod, instance) ({_own('leader')})", "{{pod}} {{instance}}")],
                    width=12,
                    states={0: ("standby", BLUE), 1: ("leader", GREEN)},
                ),
            ],
        ),
        Row(
            "Namespaces",
            [
                _panel(
                    Kind.STATES,
                    "Watched namespaces",
                    "Whether the leader can list and watch each namespace. A single line with the "
                    "operator's own namespace represents all namespaces.",
                    "none",
                    [Query(_WATCHED, "{{namespace}}")],
                    width=24,
                    height=6,
                    states={0: ("not watched", RED), 1: ("watched", GREEN)},
                ),
            ],
        ),
        Row(
            "API server and process",
            [
                _panel(
                    Kind.LINES,
                    "API requests",
                    "Requests per second by verb and status. Code 0 means no response.",
                    "reqps",
                    [
                        Query(
                            f"sum by (verb, code) ({_rate('api_requests_total')})",
                            "{{verb}} {{code}}",
                        )
                    ],
                    bounds=(0.0, None),
                ),
                _panel(
                    Kind.LINES,
                    "Memory",
                    "Resident memory of each operator.",
                    "bytes",
                    [Query(f"process_resident_memory_bytes {_OURS}", "{{pod}} {{instance}}")],
                    bounds=(0.0, None),
                ),
                _panel(
                    Kind.LINES,
                    "CPU",
                    "CPU usage of each operator, in cores.",
                    "short",
                    [
                        Query(
                            f"rate(process_cpu_seconds_total[$__rate_interval]) {_OURS}",
                            "{{pod}} {{instance}}",
                        )
                    ],
                    bounds=(0.0, None),
                ),
            ],
        ),
    ],
    links=[_LOGS],
)
