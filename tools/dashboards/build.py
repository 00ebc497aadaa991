"""Makes Grafana's JSON (schema v1: what every Grafana from 10 on takes) with its own SDK."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from tools.dashboards.board_types import GREEN, Board, Choice, Kind, Note, Panel, Query

SOURCE = shapes.DataSourceRef(type_val="prometheus", uid="${datasource}")
#: By these all dashboards find each other.
TAG = "selfemo"
#: Figures change with stages: a closer look shows nothing more.
SHORTEST_STEP = "1m"

_BUILDERS: dict[Kind, type[Any]] = {
    Kind.STAT: stat.Panel,
    Kind.LINES: timeseries.Panel,
    Kind.BARS: timeseries.Panel,
    Kind.GAUGES: bargauge.Panel,
    Kind.HEATMAP: heatmap.Panel,
    Kind.STATES: statetimeline.Panel,
    Kind.TABLE: table.Panel,
}


def to_json(board: Board) -> str:
    """Return a dashboard's file."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .refresh("1m")
        .time(board.since, "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("selfemo")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )
    for choice in board.choices:
        made = made.with_variable(_variable(choice))
    for note in board.notes:
        made = made.annotation(_annotation(note))
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_panel(panel))
    whole = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _variable(choice: Choice) -> dashboard.QueryVariable:
    made = (
        dashboard.QueryVariable(choice.name)
        .label(choice.label)
        .datasource(SOURCE)
        .query(choice.query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if choice.several:
        made = made.multi(True).include_all(True).all_value(".*")
        every = models.VariableOption(selected=True, text=["All"], value=["$__all"])
        made = made.current(every)
    return made


def _annotation(note: Note) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(note.name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(note.color)
        .expr(note.expr)
        .step(SHORTEST_STEP)
        .title_format(note.title)
    )


def _panel(panel: Panel) -> Any:  # the builders share their methods, and no type
    made = (
        _BUILDERS[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(panel.width)
        .height(panel.height)
        .interval(SHORTEST_STEP)
        .links([dashboard.DashboardLink(panel.link.title).url(panel.link.url)])
    )
    if panel.decimals is not None:
        made = made.decimals(panel.decimals)
    low, high = panel.bounds
    made = made.min(low) if low is not None else made
    made = made.max(high) if high is not None else made
    if panel.states:
        made = made.mappings([_mapping(panel)])
    made = made.thresholds(_thresholds(panel))
    for number, query in enumerate(panel.queries):
        made = made.with_target(_target(panel, query, chr(ord("A") + number)))
    return _STYLES[panel.kind](made, panel)


def _target(panel: Panel, query: Query, ref: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).ref_id(ref).datasource(SOURCE)
    if query.legend:
        made = made.legend_format(query.legend)
    if panel.kind is Kind.TABLE:
        made = made.format(PromQueryFormat.TABLE)
    elif panel.kind is Kind.HEATMAP:
        made = made.format(PromQueryFormat.HEATMAP)
    return made.instant() if query.instant else made.range()


def _mapping(panel: Panel) -> models.ValueMap:
    options = {
        str(value): models.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(panel.states.items())
    }
    return models.ValueMap(options=options)


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=GREEN)]
    steps += [models.Threshold(value=value, color=color) for value, color in panel.thresholds]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _stat(made: Any, _: Panel) -> Any:
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    return made.reduce_options(last).graph_mode(shapes.BigValueGraphMode.NONE)


def _lines(made: Any, panel: Panel) -> Any:
    legend = (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(shapes.LegendDisplayMode.TABLE)
        .placement(shapes.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull"])
    )
    tooltip = common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI)
    made = made.legend(legend).tooltip(tooltip)
    if panel.kind is Kind.BARS:
        stacked = common.StackingConfig().mode(shapes.StackingMode.NORMAL)
        made = made.draw_style(shapes.GraphDrawStyle.BARS).fill_opacity(60).stacking(stacked)
    else:
        made = made.line_interpolation(shapes.LineInterpolation.STEP_AFTER).fill_opacity(0)
    for name in panel.right_axis:
        own = [
            models.DynamicConfigValue("custom.axisPlacement", "right"),
            models.DynamicConfigValue("unit", "none"),
            models.DynamicConfigValue("min", 0),
            models.DynamicConfigValue("max", None),
        ]
        made = made.override_by_name(name, own)
    for name in panel.dashed:
        style = {"fill": "dash", "dash": [8, 8]}
        made = made.override_by_name(name, [models.DynamicConfigValue("custom.lineStyle", style)])
    return made


def _gauges(made: Any, _: Panel) -> Any:
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    made = made.reduce_options(last).orientation(shapes.VizOrientation.HORIZONTAL)
    return made.display_mode(shapes.BarGaugeDisplayMode.BASIC)


def _heatmap(made: Any, panel: Panel) -> Any:
    color = heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Blues")
    color = color.steps(64).exponent(0.5)
    return made.calculate(False).color(color).y_axis(heatmap.YAxisConfig().unit(panel.unit))


def _states(made: Any, _: Panel) -> Any:
    return made.show_value(shapes.VisibilityMode.AUTO).merge_values(True).row_height(0.8)


def _table(made: Any, panel: Panel) -> Any:
    """Join the queries into one line for each evolution."""
    fields = list(panel.columns)
    organize = {
        "indexByName": {name: index for index, name in enumerate(fields)},
        "renameByName": {name: title for name, (title, _) in panel.columns.items()},
    }
    keep = {"include": {"names": fields}}
    made = (
        made.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(id_val="filterFieldsByName", options=keep)
        )
        .with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))
    )
    for title, unit in panel.columns.values():
        made = made.override_by_name(title, [models.DynamicConfigValue("unit", unit)])
    if panel.row_link:
        links = [{"title": "Evolution", "url": panel.row_link}]
        made = made.override_by_name("Name", [models.DynamicConfigValue("links", links)])
    return made


_STYLES = {
    Kind.STAT: _stat,
    Kind.LINES: _lines,
    Kind.BARS: _lines,
    Kind.GAUGES: _gauges,
    Kind.HEATMAP: _heatmap,
    Kind.STATES: _states,
    Kind.TABLE: _table,
}
