"""The rules of grafana/dashboard-linter (its docs/index.md), over a dashboard's JSON.

That program cannot be installed as a library or by `go install`; the rules are few. Those that need
a parser of PromQL are left to promtool, see test_dashboards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]
Rule = Callable[[Json], Iterator[str]]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Ids of Grafana's units that we use; an unknown one shows as a suffix.
UNITS = (
    "none short string percent percentunit s bytes mbytes watt ops reqps".split()  # noqa: SIM905
)
#: Rules that do not hold here, and why.
EXCLUDED = {
    "template-job": "an evolution is shown by whichever operator leads: job and instance are "
    "summed away, and namespace and name choose",
    "template-instance": "as above",
    "target-job": "as above",
    "target-instance": "as above",
    "target-counter-agg": "totals of a run are shown as they are: they come from its status and "
    "outlive any process; rewards are a histogram of one generation",
}
_COUNTER_FUNCTIONS = ("rate", "increase", "irate", "delta", "idelta", "changes")


def template_datasource(board: Json) -> Iterator[str]:
    first = board["templating"]["list"][0]
    if (first["name"], first["type"], first["query"]) != ("datasource", "datasource", "prometheus"):
        yield "the first variable is not the data source"
    if first["label"] != "Data source":
        yield "its label is not `Data source`"


def template_on_time_change_reload(board: Json) -> Iterator[str]:
    for variable in board["templating"]["list"]:
        if variable["type"] == "query" and variable["refresh"] != 2:
            yield f"{variable['name']} is not asked again when the time range changes"
        if variable["type"] == "query" and variable["datasource"] != SOURCE:
            yield f"{variable['name']} does not use the chosen data source"


def panel_datasource(board: Json) -> Iterator[str]:
    for panel in panels(board):
        if panel["datasource"] != SOURCE or any(t["datasource"] != SOURCE for t in targets(panel)):
            yield f"{panel['title']} does not use the chosen data source"


def panel_title_description(board: Json) -> Iterator[str]:
    for panel in panels(board):
        if not panel.get("title") or not panel.get("description", "").endswith("."):
            yield f"{panel.get('title')!r} lacks its title or a sentence"


def panel_units(board: Json) -> Iterator[str]:
    for panel in panels(board):
        unit = panel["fieldConfig"]["defaults"].get("unit")
        if unit not in UNITS:
            yield f"{panel['title']} has the unit {unit}"


def panel_no_targets(board: Json) -> Iterator[str]:
    yield from (f"{p['title']} asks for nothing" for p in panels(board) if not targets(p))


def target_rate_interval(board: Json) -> Iterator[str]:
    for panel in panels(board):
        for target in targets(panel):
            for used in re.findall(r"\[([^\]]+)\]", target["expr"].replace("[0-9]", "")):
                if used != "$__rate_interval":
                    yield f"{panel['title']} takes a range of {used}"


def target_counter_agg(board: Json) -> Iterator[str]:
    functions = "|".join(_COUNTER_FUNCTIONS)
    for panel in panels(board):
        for target in targets(panel):
            for match in re.finditer(r"\w+_(total|bucket|sum|count)\b(?=\{)", target["expr"]):
                if not re.search(rf"({functions})\($", target["expr"][: match.start()]):
                    yield f"{panel['title']}: {match[0]}"


def uneditable_dashboard(board: Json) -> Iterator[str]:
    if board["editable"] is not False:
        yield "it can be edited: what is edited is lost at the next upgrade"


# Ours ---------------------------------------------------------------------------------------------


def panel_links(board: Json) -> Iterator[str]:
    for panel in panels(board):
        if not any(link["title"] and link["url"] for link in panel.get("links", [])):
            yield f"{panel['title']} leads nowhere"


def target_chosen(board: Json) -> Iterator[str]:
    """In place of target-job: nothing is shown of namespaces that were not chosen."""
    for panel in panels(board):
        for target in targets(panel):
            for match in re.finditer(r"\b(?:selfemo|namespace)_\w+(:[\w:]+)?", target["expr"]):
                after = target["expr"][match.end() :]
                if match[0].startswith(("selfemo", "namespace_")) and not after.startswith(
                    "{names"
                ):
                    yield f"{panel['title']}: {match[0]} of any namespace"


def legends(board: Json) -> Iterator[str]:
    for panel in panels(board):
        for target in targets(panel):
            if panel["type"] != "table" and not target.get("legendFormat"):
                yield f"{panel['title']}: a series without a name"


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
        legends,
    )
}


def panels(board: Json) -> list[Json]:
    """Return all panels but the heads of rows."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets(panel: Json) -> list[Json]:
    found: list[Json] = panel.get("targets", [])
    return found


def problems(board: Json, *, excluded: bool = True) -> list[str]:
    """Return what is wrong with a dashboard, by rule."""
    skipped = EXCLUDED if excluded else {}
    return [f"{n}: {text}" for n, rule in RULES.items() if n not in skipped for text in rule(board)]
