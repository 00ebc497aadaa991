"""The Operator dashboard: does it work, is it quick, what does it ask of the API server?"""

from __future__ import annotations

from typing import Any

from tools.dashboards.board_types import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Board,
    Choice,
    Kind,
    Link,
    Panel,
    Query,
    Row,
)

_IN = 'namespace="$namespace"'
_TO_FLEET = Link("Fleet", "/d/selfemo-fleet?${__url_time_range}")
#: The process's own figures have no name of ours: whatever shows our build is an operator.
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
    return _panel(Kind.STAT, title, text, unit, queries, width=4, height=4, **more)


def _own(name: str) -> str:
    return f"selfemo_operator_{name}{{{_IN}}}"


def _rate(name: str) -> str:
    return f"rate({_own(name)}[$__rate_interval])"


OPERATOR = Board(
    "selfemo-operator",
    "selfemo / Operator",
    "The operator: election, passes, errors, requests, its process.",
    [Choice("namespace", "Namespace", "label_values(selfemo_operator_build_info, namespace)")],
    [
        Row(
            "Now",
            [
                _stat(
                    "Leaders",
                    "Operators that hold the Lease: one, or nothing goes on.",
                    "none",
                    f"sum({_own('leader')})",
                    states={0: ("none", RED), 1: ("one", GREEN)},
                ),
                _stat(
                    "Replicas",
                    "Operators that answer.",
                    "none",
                    f"count({_own('build_info')})",
                ),
                _stat(
                    "Version",
                    "Versions that run.",
                    "none",
                    f"count by (version) ({_own('build_info')})",
                    legend="{{version}}",
                ),
                _stat(
                    "Resync age",
                    "Since the leader last listed everything.",
                    "s",
                    f"max({_own('resync_age_seconds')} and {_own('leader')} == 1)",
                    thresholds=[(180.0, ORANGE), (300.0, RED)],
                ),
                _stat(
                    "Queue",
                    "Evolutions that wait for a pass or are in one.",
                    "none",
                    f"sum({_own('queue_length')})",
                    thresholds=[(100.0, ORANGE)],
                ),
                _stat(
                    "Unreadable",
                    "Evolutions without metrics, since their resource is odd.",
                    "none",
                    f"max({_own('unreadable_evolutions')})",
                    thresholds=[(1.0, ORANGE)],
                ),
            ],
        ),
        Row(
            "Passes",
            [
                _panel(
                    Kind.LINES,
                    "Reconciles by result",
                    "Passes each second. `conflict` is no fault: somebody else wrote first.",
                    "ops",
                    [Query(f"sum by (result) ({_rate('reconciles_total')})", "{{result}}")],
                    bounds=(0.0, None),
                ),
                _panel(
                    Kind.LINES,
                    "Duration of a pass",
                    "Half of the passes, and all but one in a hundred, take at most this.",
                    "s",
                    [
                        Query(f"histogram_quantile({q}, sum by (le) ({_DURATIONS}))", name)
                        for q, name in ((0.5, "p50"), (0.99, "p99"))
                    ],
                    bounds=(0.0, None),
                ),
                _panel(
                    Kind.LINES,
                    "Failed passes",
                    "In a quarter of an hour; the alert fires above five.",
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
                    "How many passes took how long.",
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
                    states={0: ("stands by", BLUE), 1: ("leads", GREEN)},
                ),
            ],
        ),
        Row(
            "API server and process",
            [
                _panel(
                    Kind.LINES,
                    "API requests",
                    "Requests each second by verb and status, but kopf's own; code 0: no answer.",
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
                    "Processor time of each operator; 1 is a whole core.",
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
)
