"""The dashboards have the types of Grafana's own schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tools.dashboards.__main__ import FOLDER

from tests.integration.dashboards.linter import Json, panels
from tests.support.cluster.errors import ClusterError
from tests.support.grafana import packages, type_errors

BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


@pytest.fixture(scope="module", autouse=True)
def _types() -> None:
    try:
        packages("types")
    except ClusterError as error:
        pytest.skip(f"no types of Grafana: {error}")


def of_type(board: Json, kind: str) -> Json:
    return next(panel for panel in panels(board) if panel["type"] == kind)


def _break_type(board: Json) -> None:
    of_type(board, "stat")["type"] = "statistic"


def _break_field(board: Json) -> None:
    panels(board)[0]["titel"] = "A wrong field"


def _break_option(board: Json) -> None:
    of_type(board, "stat")["options"]["graphMode"] = "pretty"


def _break_custom(board: Json) -> None:
    of_type(board, "timeseries")["fieldConfig"]["defaults"]["custom"]["lineWidht"] = 2


def _break_variable(board: Json) -> None:
    board["templating"]["list"][2]["refresh"] = 7


def _break_query(board: Json) -> None:
    panels(board)[0]["targets"][0]["format"] = "graph"


BREAKS: tuple[Callable[[Json], None], ...] = (
    _break_type,
    _break_field,
    _break_option,
    _break_custom,
    _break_variable,
    _break_query,
)


def test_the_dashboards_have_grafanas_types_and_broken_ones_have_not(tmp_path: Path) -> None:
    """One run of the compiler checks them all: most of its time is the start."""
    boards = dict(BOARDS)
    for function in BREAKS:
        broken = copy.deepcopy(BOARDS["operator"])  # the smallest
        function(broken)
        boards[function.__name__] = broken
    errors = type_errors(boards, tmp_path)
    wrong = {name: [line for line in errors if line.startswith(f"{name}.ts(")] for name in boards}
    assert not [line for line in errors if not line.startswith(tuple(f"{n}.ts(" for n in boards))]
    for name in BOARDS:
        assert wrong[name] == []
    for function in BREAKS:
        assert wrong[function.__name__], f"{function.__name__} is not noticed"
