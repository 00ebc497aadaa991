"""What the rows of the Evolution dashboard have in common: matchers, links and panels."""

from __future__ import annotations

from typing import Any

from tools.dashboards.board_types import Kind, Link, Panel, Query
from tools.dashboards.variables import CLUSTER, logs_link

from selfemo_api.metrics import LIVE_PREFIX
from selfemo_operator.controller.metrics.series import PREFIX

OF = f'namespace="$namespace", name="$name", {CLUSTER}'
TO_FLEET = Link("Fleet", "/d/selfemo-fleet?${__url_time_range}")
TO_OPERATOR = Link("Operator", "/d/selfemo-operator?${__url_time_range}")
TO_LOGS = logs_link("Logs of the stages", '{namespace="$namespace", pod=~"$name-g[0-9]+-.+"}')


def by(labels: str, metric: str) -> str:
    """Return the expression of a metric by some labels, from any operator."""
    return f"max by ({labels}) ({PREFIX}{metric}{{{OF}}})"


def one(metric: str) -> str:
    """Return the expression of a metric with one value, from any operator."""
    return f"max({PREFIX}{metric}{{{OF}}})"


def live(metric: str) -> str:
    """Return the selector of a metric of the running stage's pods."""
    return f"{LIVE_PREFIX}{metric}{{{OF}}}"


def panel(kind: Kind, title: str, text: str, unit: str, queries: list[Query], **more: Any) -> Panel:
    """Return a panel with a link to the Fleet dashboard, or another link."""
    return Panel(kind, title, text, unit, queries, more.pop("link", TO_FLEET), **more)


def stat(title: str, text: str, unit: str, expr: str, **more: Any) -> Panel:
    """Return a panel with one number."""
    query = Query(expr, title, optional=more.pop("optional", False))
    size = {"width": 4, "height": 4} | more
    return panel(Kind.STAT, title, text, unit, [query], **size)
