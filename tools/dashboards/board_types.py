"""The types of a dashboard: rows of panels with their queries. ``build`` converts them to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

GREEN, YELLOW, ORANGE, RED, BLUE, GRAY, PURPLE, LIGHT_GREEN = (
    "green",
    "yellow",
    "orange",
    "red",
    "blue",
    "#808080",
    "purple",
    "light-green",
)


class Kind(StrEnum):
    """The kinds of visualization."""

    STAT = "stat"
    LINES = "timeseries"
    BARS = "bars"
    BAR_CHART = "barchart"
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
    """Whether only the current value is queried."""
    optional: bool = False
    """Whether it may have no result, because its series come from elsewhere or are rare."""


@dataclass(frozen=True)
class Link:
    """A link to another dashboard. Dashboard variables in the URL keep the user's choices."""

    title: str
    url: str
    new_tab: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel. Each must have a unit, a description and a link."""

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
    """The text and the color of each value that stands for a state."""
    thresholds: Sequence[tuple[float, str]] = ()
    """The color from each value on. Below the first value the color is green."""
    bounds: tuple[float | None, float | None] = (None, None)
    right_axis: Sequence[str] = ()
    """The legends of series that use the right axis."""
    dashed: Sequence[str] = ()
    """The legends of series that are drawn as dashed lines, for comparison."""
    columns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """For a table or a bar chart: the title and the unit of each field, in their order."""
    cell_links: Mapping[str, Link] = field(default_factory=dict)
    """For a table: the link of each value of a column, by the column's title."""
    by_generation: bool = False
    """For a table or a bar chart: whether it has one row for each value of the first query. All
    queries cover the time range. A row has the first values of the others at that value."""
    stacked: bool = False
    """For a bar chart: whether the bars of a generation stand on each other."""
    no_value: str = ""
    """The text that is shown without a value."""


@dataclass(frozen=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """A variable that the user chooses from the values of a label."""

    name: str
    label: str
    query: str
    multi: bool = False
    """Whether several values can be chosen, or all of them."""
    optional: bool = False
    """Whether the label may not exist. All values are then chosen, also that of no label."""


@dataclass(frozen=True)
class TextVariable:
    """A variable that the user types."""

    name: str
    label: str
    description: str
    default: str = ""


@dataclass(frozen=True)
class SourceVariable:
    """A variable that the user chooses from the data sources of a type."""

    name: str
    label: str
    type: str
    description: str


@dataclass(frozen=True)
class Annotation:
    """Annotations on the time axis, at the times when an expression is above 0."""

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
    variables: Sequence[Variable | TextVariable | SourceVariable]
    rows: Sequence[Row]
    annotations: Sequence[Annotation] = ()
    links: Sequence[Link] = ()
    """Links beside the variables."""
    since: str = "now-24h"


def state_code(metric: str, labels: str, label: str, states: Sequence[str]) -> str:
    """Return the expression that converts a state set to one number: the index of the active state.

    The labels `instance` and `pod` are aggregated away, because any operator may be the leader.
    A label `cluster` stays where there is one.

    Parameters
    ----------
    metric
        The name of the metric. It has one series for each state, with the value 1 or 0.
    labels
        The label matchers that select the evolutions.
    label
        The label that contains the state.
    states
        The states, in the order of their indexes.
    """
    parts = [
        f'{metric}{{{labels}, {label}="{state}"}} * {index}' for index, state in enumerate(states)
    ]
    body = "\n    or ".join(parts)
    return (
        f"max by (cluster, namespace, name) (\n    {body}\n)\n"
        f"and on (cluster, namespace, name) "
        f"max by (cluster, namespace, name) ({metric}{{{labels}}}) == 1"
    )
