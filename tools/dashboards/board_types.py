"""What a dashboard of ours is: rows of panels, and their queries. Data only; `build` makes JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

GREEN, YELLOW, ORANGE, RED, BLUE, GRAY, PURPLE = (
    "green",
    "yellow",
    "orange",
    "red",
    "blue",
    "#808080",
    "purple",
)


class Kind(StrEnum):
    """The visualizations that are used."""

    STAT = "stat"
    LINES = "timeseries"
    BARS = "bars"
    GAUGES = "bargauge"
    HEATMAP = "heatmap"
    STATES = "state-timeline"
    TABLE = "table"


@dataclass(frozen=True)
class Query:
    """One PromQL query of a panel."""

    expr: str
    legend: str = ""
    instant: bool = False
    """Only the value now."""


@dataclass(frozen=True)
class Link:
    """Where to look next. With dashboard variables the link keeps what is chosen."""

    title: str
    url: str


@dataclass(frozen=True)
class Panel:
    """One panel. Each has a unit, a description and a link: no figure stands alone."""

    kind: Kind
    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    link: Link
    width: int = 8
    height: int = 8
    decimals: int | None = None
    states: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Words and colors of values that stand for states."""
    thresholds: Sequence[tuple[float, str]] = ()
    """Colors from a value on; below the first it is green."""
    bounds: tuple[float | None, float | None] = (None, None)
    right_axis: Sequence[str] = ()
    """Series with an axis of their own."""
    dashed: Sequence[str] = ()
    """Series that are lines to compare with."""
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of a table: the title and unit of each field that is shown, in order."""
    row_link: str = ""
    """Of a table: where the name leads."""


@dataclass(frozen=True)
class Row:
    """Panels under a head."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Choice:
    """A variable that a person picks from a label's values."""

    name: str
    label: str
    query: str
    several: bool = False


@dataclass(frozen=True)
class Note:
    """Marks on the time axis, where the expression is above 0."""

    name: str
    expr: str
    color: str
    title: str


@dataclass(frozen=True)
class Board:
    """A dashboard."""

    uid: str
    title: str
    description: str
    choices: Sequence[Choice]
    rows: Sequence[Row]
    notes: Sequence[Note] = ()
    since: str = "now-24h"


def state_code(metric: str, labels: str, label: str, words: Sequence[str]) -> str:
    """Return the expression of a state set as one number: the place of the word that is 1.

    Whichever operator leads shows it: `instance` and `pod` are summed away.
    """
    parts = [
        f'{metric}{{{labels}, {label}="{word}"}} * {place}' for place, word in enumerate(words)
    ]
    body = "\n    or ".join(parts)
    return (
        f"max by (namespace, name) (\n    {body}\n)\n"
        f"and on (namespace, name) max by (namespace, name) ({metric}{{{labels}}}) == 1"
    )
