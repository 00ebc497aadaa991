"""Every PromQL expression that is shipped, in panels, marks, variables, rules and alerts. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tools.dashboards.board_types import Board, Kind
from tools.dashboards.boards import BOARDS

RULES = Path(__file__).resolve().parents[2] / "helm" / "selfemo" / "files" / "rules"
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
#: What Grafana puts for these at a scrape interval of 30 s or less.
_BUILT_IN = {"__rate_interval": "4m", "__interval": "1m"}


@dataclass(frozen=True)
class Expression:
    """One expression, and where it stands."""

    place: str
    """``dashboard Fleet / panel …``, ``alert …`` or ``record …``."""
    expr: str
    """As it is shipped; :func:`resolved` fills in a dashboard's variables."""
    optional: bool = False
    """Whether it may well have no result: what it asks for comes from elsewhere (DCGM), or is rare
    (a queue, a failure, a mark)."""


def expressions(rules: Path = RULES) -> tuple[Expression, ...]:
    """Return all expressions.

    Parameters
    ----------
    rules
        The folder with the rules' files.
    """
    found = [expression for board in BOARDS for expression in _of_board(board)]
    for path in sorted(rules.glob("*.yaml")):
        found += _of_rules(yaml.safe_load(path.read_text()))
    return tuple(found)


def resolved(expr: str, choices: Mapping[str, str]) -> str:
    """Return an expression with the variables that Grafana would fill in.

    Parameters
    ----------
    expr
        As it is shipped.
    choices
        Values of the dashboard's own variables (``namespace``, ``name``).

    Raises
    ------
    KeyError
        If a variable has no value.
    """
    values = {**_BUILT_IN, **choices}
    return _VARIABLE.sub(lambda match: values[match[1]], expr)


def _of_board(board: Board) -> Iterator[Expression]:
    place = f"dashboard {board.title}"
    for choice in board.choices:
        match = _LABEL_VALUES.fullmatch(choice.query)
        if match is None:
            raise ValueError(f"{place}: a variable's query is no label_values: {choice.query}")
        expr = f"group by ({match['label']}) ({match['selector']})"
        yield Expression(f"{place} / variable {choice.name}", expr)
    for note in board.notes:
        yield Expression(f"{place} / mark {note.name}", note.expr, optional=True)
    for row in board.rows:
        for panel in row.panels:
            rare = panel.kind is Kind.STATES and panel.title == "Alerts"
            for query in panel.queries:
                optional = rare or "DCGM_" in query.expr or "goal" in query.expr
                yield Expression(f"{place} / panel {panel.title}", query.expr, optional)


def _of_rules(file: Mapping[str, Any]) -> Iterator[Expression]:
    for group in file["groups"]:
        for rule in group["rules"]:
            kind = "alert" if "alert" in rule else "record"
            yield Expression(f"{kind} {rule[kind]}", rule["expr"], optional=kind == "alert")
