"""Lists all PromQL expressions of the chart: in dashboards, rules and alerts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tools.dashboards.board_types import Board, Variable
from tools.dashboards.boards import BOARDS

from selfemo_api.metrics import LIVE_PREFIX

RULES = Path(__file__).resolve().parents[2] / "helm" / "selfemo" / "files" / "rules"
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")
#: A variable's name. `$1` is a group of a regular expression.
_VARIABLE = re.compile(r"\$\{?([a-z_]\w*)\}?")
#: The values of Grafana's built-in variables at a scrape interval of 30 s or less.
_BUILT_IN = {"__rate_interval": "4m", "__interval": "1m"}
#: Values of the dashboards' own variables that a user may leave as they are.
_CHOSEN = {"cluster": ".*", "gpu_hour_price": "2.5"}


@dataclass(frozen=True)
class Expression:
    """One expression, and its place."""

    place: str
    """``dashboard Fleet / panel …``, ``alert …`` or ``record …``."""
    expr: str
    """The expression as in the chart. :func:`resolved` replaces a dashboard's variables."""
    optional: bool = False
    """Whether it may have no result, because its series come from elsewhere (DCGM) or are rare (a
    queue, a failure, an annotation)."""
    live: bool = False
    """Whether its series come from the pods of a running stage."""


def expressions(rules: Path = RULES) -> tuple[Expression, ...]:
    """Return all expressions.

    Parameters
    ----------
    rules
        The folder with the files of the rules.
    """
    listed = [expression for board in BOARDS for expression in _of_board(board)]
    for path in sorted(rules.glob("*.yaml")):
        listed += _of_rules(yaml.safe_load(path.read_text()))
    return tuple(listed)


def resolved(expr: str, variables: Mapping[str, str]) -> str:
    """Return an expression with the variables replaced, as Grafana does.

    Parameters
    ----------
    expr
        The expression as in the chart.
    variables
        The values of the dashboard's own variables (``namespace``, ``name``). The others have
        values already: any cluster, and a price of a GPU hour.

    Raises
    ------
    KeyError
        If a variable has no value.
    """
    values = {**_BUILT_IN, **_CHOSEN, **variables}
    return _VARIABLE.sub(lambda match: values[match[1]], expr)


def _of_board(board: Board) -> Iterator[Expression]:
    place = f"dashboard {board.title}"
    for variable in board.variables:
        if not isinstance(variable, Variable):
            continue
        match = _LABEL_VALUES.fullmatch(variable.query)
        if match is None:
            raise ValueError(f"{place}: a variable's query is not a label_values: {variable.query}")
        expr = f"group by ({match['label']}) ({match['selector']})"
        yield Expression(f"{place} / variable {variable.name}", expr)
    for annotation in board.annotations:
        yield Expression(f"{place} / annotation {annotation.name}", annotation.expr, optional=True)
    for row in board.rows:
        for panel in row.panels:
            for query in panel.queries:
                live = LIVE_PREFIX in query.expr
                name = f"{place} / panel {panel.title}"
                yield Expression(name, query.expr, query.optional, live)


def _of_rules(file: Mapping[str, Any]) -> Iterator[Expression]:
    for group in file["groups"]:
        for rule in group["rules"]:
            kind = "alert" if "alert" in rule else "record"
            yield Expression(f"{kind} {rule[kind]}", rule["expr"], optional=kind == "alert")
