"""The rules of grafana/dashboard-linter (its docs/index.md) for the JSON of a dashboard.

That program cannot be installed as a library or with `go install`, and it has few rules. Promtool
checks the rules that need a PromQL parser; see test_dashboards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]
Rule = Callable[[Json], Iterator[str]]

SOURCE = {"type": "prometheus", "uid": "${prometheus_datasource}"}
#: The ids of the used Grafana units. Grafana shows an unknown id as a suffix.
UNITS = (
    "none short string percent percentunit s bytes mbytes watt ops reqps sci".split()  # noqa: SIM905
)
#: The rules that are not applied, and why.
EXCLUDED = {
    "template-job": "any operator may be the leader: job and instance are aggregated away, and "
    "namespace and name select the evolution",
    "template-instance": "as above",
    "target-job": "as above",
    "target-instance": "as above",
    "target-counter-agg": "totals of a run are shown without rate(): they come from its status and "
    "do not restart with a process; rewards are a histogram of one generation",
}
_COUNTER_FUNCTIONS = ("rate", "increase", "irate", "delta", "idelta", "changes")


def template_datasource(board: Json) -> Iterator[str]:
    """Check names and labels: with several data sources, each has the name of its type."""
    sources = [v for v in variables(board) if v["type"] == "datasource"]
    if variables(board)[0] not in sources or sources[0]["query"] != "prometheus":
        yield "the first variable is not the data source"
    for source in sources:
        kind = source["query"]
        if source["name"] != f"{kind}_datasource":
            yield f"the variable of {kind} is not named `{kind}_datasource`"
        if source["label"] != f"{kind.title()} data source":
            yield f"the variable of {kind} is not labeled `{kind.title()} data source`"


def template_on_time_change_reload(board: Json) -> Iterator[str]:
    for variable in variables(board):
        if variable["type"] == "query" and variable["refresh"] != 2:
            yield f"{variable['name']} is not queried again when the time range changes"
        if variable["type"] == "query" and variable["datasource"] != SOURCE:
            yield f"{variable['name']} does not use the chosen data source"


def panel_datasource(board: Json) -> Iterator[str]:
    for panel in panels(board):
        if panel["datasource"] != SOURCE or any(t["datasource"] != SOURCE for t in targets(panel)):
            yield f"{panel['title']} does not use the chosen data source"


def panel_title_description(board: Json) -> Iterator[str]:
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description", "").endswith("."):
            yield f"{panel.get('title')!r} has no title or no sentence as description"


def panel_units(board: Json) -> Iterator[str]:
    for panel in panels(board):
        unit = panel["fieldConfig"]["defaults"].get("unit")
        if unit not in UNITS:
            yield f"{panel['title']} has the unit {unit}"
        for override in panel["fieldConfig"]["overrides"]:
            for part in override["properties"]:
                if part["id"] == "unit" and part["value"] not in UNITS:
                    yield f"{panel['title']} has the unit {part['value']} in an override"


def panel_no_targets(board: Json) -> Iterator[str]:
    yield from (f"{p['title']} has no query" for p in panels(board) if not targets(p))


def target_rate_interval(board: Json) -> Iterator[str]:
    for panel in panels(board):
        for target in targets(panel):
            plain = re.sub(r'"[^"]*"', '""', target["expr"])  # without regular expressions
            for used in re.findall(r"\[([^\]]+)\]", plain):
                if used != "$__rate_interval":
                    yield f"{panel['title']} uses the range {used}"


def target_counter_agg(board: Json) -> Iterator[str]:
    functions = "|".join(_COUNTER_FUNCTIONS)
    for panel in panels(board):
        for target in targets(panel):
            for match in re.finditer(r"\w+_(total|bucket|sum|count)\b(?=\{)", target["expr"]):
                if not re.search(rf"({functions})\($", target["expr"][: match.start()]):
                    yield f"{panel['title']}: {match[0]}"


def uneditable_dashboard(board: Json) -> Iterator[str]:
    if board["editable"] is not False:
        yield "it can be edited, but the next upgrade would undo the edit"


# Additional rules --------------------------------------------------------------------------------


def panel_links(board: Json) -> Iterator[str]:
    for panel in panels(board):
        if not any(link["title"] and link["url"] for link in panel.get("links", [])):
            yield f"{panel['title']} has no link"


def target_chosen(board: Json) -> Iterator[str]:
    """Instead of target-job: every metric must have the chosen namespaces as matcher."""
    for panel in panels(board):
        for target in targets(panel):
            for match in re.finditer(r"\b(?:selfemo|namespace)_\w+(:[\w:]+)?", target["expr"]):
                after = target["expr"][match.end() :]
                if match[0].startswith(("selfemo", "namespace_")) and not after.startswith(
                    "{names"
                ):
                    yield f"{panel['title']}: {match[0]} has no matcher for the namespace"


def target_cluster(board: Json) -> Iterator[str]:
    """Check that every metric has the chosen cluster as matcher, as in kubernetes-mixin."""
    for panel in panels(board):
        for target in targets(panel):
            for match in re.finditer(r"\b(?:selfemo|namespace)_[\w:]+\{([^}]*)\}", target["expr"]):
                if 'cluster=~"$cluster"' not in match[1]:
                    yield f"{panel['title']}: {match[0]} has no matcher for the cluster"


def defined_variables(board: Json) -> Iterator[str]:
    """Check that each variable that a panel, a link or a variable uses is one of the dashboard."""
    names = {variable["name"] for variable in variables(board)}
    for name in re.findall(r"\$\{?([a-z]\w*)", json.dumps(board)):
        if name not in names:
            yield f"there is no variable {name}"


def described_variables(board: Json) -> Iterator[str]:
    """Check that a variable that is typed, or needs another data source, has a description."""
    for variable in variables(board):
        if variable["type"] != "query" and not variable.get("description", "").endswith("."):
            yield f"{variable['name']} has no sentence as description"


def legends(board: Json) -> Iterator[str]:
    for panel in panels(board):
        for target in targets(panel):
            if panel["type"] != "table" and not target.get("legendFormat"):
                yield f"{panel['title']}: a series has no legend"


RULES: dict[str, Rule] = {
    rule.__name__.replace("_", "-"): rule
    for rule in (
        template_datasource,
        template_on_time_change_reload,
        panel_datasource,
        panel_title_description,
        panel_units,
        panel_no_targets,
        target_rate_interval,
        target_counter_agg,
        uneditable_dashboard,
        panel_links,
        target_chosen,
        target_cluster,
        defined_variables,
        described_variables,
        legends,
    )
}


def panels(board: Json) -> list[Json]:
    """Return all panels, without the headings of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def variables(board: Json) -> list[Json]:
    """Return the variables."""
    listed: list[Json] = board["templating"]["list"]
    return listed


def targets(panel: Json) -> list[Json]:
    queries: list[Json] = panel.get("targets", [])
    return queries


def problems(board: Json, *, excluded: bool = True) -> list[str]:
    """Return the problems of a dashboard, each with the name of its rule."""
    skipped = EXCLUDED if excluded else {}
    return [f"{n}: {text}" for n, rule in RULES.items() if n not in skipped for text in rule(board)]
