"""Builds Grafana's JSON with the Grafana Foundation SDK (schema v1, for Grafana 10 and later)."""

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
from tools.dashboards.board_types import GREEN, Annotation, Board, Kind, Panel, Query, Variable

SOURCE = shapes.DataSourceRef(type_val="prometheus", uid="${datasource}")
#: The tag by which the dashboards link to each other.
TAG = "selfemo"
#: The shortest interval between two points. Values change with stages, so that a shorter interval
#: shows nothing more.
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
    """Return the content of a dashboard's file."""
    builder = (
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
    for variable in board.variables:
        builder = builder.with_variable(_variable(variable))
    for annotation in board.annotations:
        builder = builder.annotation(_annotation(annotation))
    for row in board.rows:
        builder = builder.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            builder = builder.with_panel(_panel(panel))
    document = json.loads(JSONEncoder(sort_keys=True).encode(builder.build()))
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _variable(variable: Variable) -> dashboard.QueryVariable:
    builder = (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(SOURCE)
        .query(variable.query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if variable.multi:
        builder = builder.multi(True).include_all(True).all_value(".*")
        every = models.VariableOption(selected=True, text=["All"], value=["$__all"])
        builder = builder.current(every)
    return builder


def _annotation(annotation: Annotation) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(annotation.name)
        .datasource(SOURCE)
        .enable(True)
        .icon_color(annotation.color)
        .expr(annotation.expr)
        .step(SHORTEST_STEP)
        .title_format(annotation.title)
    )


def _panel(panel: Panel) -> Any:  # the builders have common methods, but no common type
    builder = (
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
        builder = builder.decimals(panel.decimals)
    low, high = panel.bounds
    builder = builder.min(low) if low is not None else builder
    builder = builder.max(high) if high is not None else builder
    if panel.states:
        builder = builder.mappings([_mapping(panel)])
    builder = builder.thresholds(_thresholds(panel))
    for number, query in enumerate(panel.queries):
        builder = builder.with_target(_target(panel, query, chr(ord("A") + number)))
    return _STYLES[panel.kind](builder, panel)


def _target(panel: Panel, query: Query, ref: str) -> prometheus.Dataquery:
    builder = prometheus.Dataquery().expr(query.expr).ref_id(ref).datasource(SOURCE)
    if query.legend:
        builder = builder.legend_format(query.legend)
    if panel.kind is Kind.TABLE:
        builder = builder.format(PromQueryFormat.TABLE)
    elif panel.kind is Kind.HEATMAP:
        builder = builder.format(PromQueryFormat.HEATMAP)
    return builder.instant() if query.instant else builder.range()


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


def _stat(builder: Any, _: Panel) -> Any:
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    return builder.reduce_options(last).graph_mode(shapes.BigValueGraphMode.NONE)


def _lines(builder: Any, panel: Panel) -> Any:
    legend = (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(shapes.LegendDisplayMode.TABLE)
        .placement(shapes.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull"])
    )
    tooltip = common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI)
    builder = builder.legend(legend).tooltip(tooltip)
    if panel.kind is Kind.BARS:
        stacked = common.StackingConfig().mode(shapes.StackingMode.NORMAL)
        builder = builder.draw_style(shapes.GraphDrawStyle.BARS).fill_opacity(60).stacking(stacked)
    else:
        builder = builder.line_interpolation(shapes.LineInterpolation.STEP_AFTER).fill_opacity(0)
    for name in panel.right_axis:
        own = [
            models.DynamicConfigValue("custom.axisPlacement", "right"),
            models.DynamicConfigValue("unit", "none"),
            models.DynamicConfigValue("min", 0),
            models.DynamicConfigValue("max", None),
        ]
        builder = builder.override_by_name(name, own)
    for name in panel.dashed:
        style = {"fill": "dash", "dash": [8, 8]}
        builder = builder.override_by_name(
            name, [models.DynamicConfigValue("custom.lineStyle", style)]
        )
    return builder


def _gauges(builder: Any, _: Panel) -> Any:
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    builder = builder.reduce_options(last).orientation(shapes.VizOrientation.HORIZONTAL)
    return builder.display_mode(shapes.BarGaugeDisplayMode.BASIC)


def _heatmap(builder: Any, panel: Panel) -> Any:
    color = heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME).scheme("Blues")
    color = color.steps(64).exponent(0.5)
    return builder.calculate(False).color(color).y_axis(heatmap.YAxisConfig().unit(panel.unit))


def _states(builder: Any, _: Panel) -> Any:
    return builder.show_value(shapes.VisibilityMode.AUTO).merge_values(True).row_height(0.8)


def _table(builder: Any, panel: Panel) -> Any:
    """Join the queries into one row for each evolution."""
    fields = list(panel.columns)
    organize = {
        "indexByName": {name: index for index, name in enumerate(fields)},
        "renameByName": {name: title for name, (title, _) in panel.columns.items()},
    }
    keep = {"include": {"names": fields}}
    builder = (
        builder.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(id_val="filterFieldsByName", options=keep)
        )
        .with_transformation(models.DataTransformerConfig(id_val="organize", options=organize))
    )
    for title, unit in panel.columns.values():
        builder = builder.override_by_name(title, [models.DynamicConfigValue("unit", unit)])
    if panel.row_link:
        links = [{"title": "Evolution", "url": panel.row_link}]
        builder = builder.override_by_name("Name", [models.DynamicConfigValue("links", links)])
    return builder


_STYLES = {
    Kind.STAT: _stat,
    Kind.LINES: _lines,
    Kind.BARS: _lines,
    Kind.GAUGES: _gauges,
    Kind.HEATMAP: _heatmap,
    Kind.STATES: _states,
    Kind.TABLE: _table,
}
