"""Builds Grafana's JSON with the Grafana Foundation SDK (schema v1, for Grafana 10 and later)."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.builders import (
    barchart,
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
from tools.dashboards.board_types import (
    GREEN,
    Annotation,
    Board,
    Kind,
    Link,
    Panel,
    Query,
    SourceVariable,
    TextVariable,
    Variable,
)

#: The name and the label are those that dashboard-linter requires beside other data sources.
SOURCE_VARIABLE = SourceVariable(
    "prometheus_datasource",
    "Prometheus data source",
    "prometheus",
    "The data source of all panels.",
)
SOURCE = shapes.DataSourceRef(type_val="prometheus", uid=f"${{{SOURCE_VARIABLE.name}}}")
#: The tag by which the dashboards link to each other.
TAG = "selfemo"
#: The shortest interval between two points. Values change with stages, so that a shorter interval
#: shows nothing more.
SHORTEST_STEP = "1m"
#: The points of a series that is grouped by generation: a step must not skip a generation.
#: Prometheus returns at most 11,000.
POINTS = 10_000

_BUILDERS: dict[Kind, type[Any]] = {
    Kind.STAT: stat.Panel,
    Kind.LINES: timeseries.Panel,
    Kind.BARS: timeseries.Panel,
    Kind.BAR_CHART: barchart.Panel,
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
        .with_variable(_variable(SOURCE_VARIABLE))
    )
    for link in board.links:
        builder = builder.link(_link(link).type(models.DashboardLinkType.LINK).icon("doc"))
    for variable in board.variables:
        builder = builder.with_variable(_variable(variable))
    for annotation in board.annotations:
        builder = builder.annotation(_annotation(annotation))
    for row in board.rows:
        builder = builder.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            builder = builder.with_panel(_panel(panel))
    document = json.loads(JSONEncoder(sort_keys=True).encode(builder.build()))
    _remove_foreign_fields(document)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _remove_foreign_fields(document: dict[str, Any]) -> None:
    """Remove the defaults of the SDK that are not in the schema of Grafana 13."""
    for variable in document["templating"]["list"]:
        for name in ("auto", "auto_count", "auto_min"):  # of another type of variable
            variable.pop(name, None)
    for panel in document["panels"]:
        if panel["type"] == "table":
            panel["options"].pop("footer", None)


def _variable(variable: Variable | TextVariable | SourceVariable) -> Any:
    match variable:
        case TextVariable():
            text = variable.default
            current = models.VariableOption(selected=True, text=text, value=text)
            typed = dashboard.TextBoxVariable(variable.name).label(variable.label)
            typed = typed.default_value(text).current(current)
            return typed.description(variable.description)
        case SourceVariable():
            source = dashboard.DatasourceVariable(variable.name).label(variable.label)
            return source.type(variable.type).description(variable.description)
        case Variable():
            return _query_variable(variable)


def _query_variable(variable: Variable) -> dashboard.QueryVariable:
    builder = (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(SOURCE)
        .query(variable.query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )
    if variable.multi or variable.optional:
        text, value = ("All", "$__all")
        every = models.VariableOption(
            selected=True,
            text=[text] if variable.multi else text,
            value=[value] if variable.multi else value,
        )
        builder = builder.multi(variable.multi).include_all(True).all_value(".*").current(every)
    return builder


def _link(link: Link) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(link.title).url(link.url).target_blank(link.new_tab)


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
        .links([_link(panel.link)])
    )
    if panel.by_generation:
        builder = builder.max_data_points(POINTS)
    if panel.no_value:
        builder = builder.no_value(panel.no_value)
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
    if panel.kind is Kind.TABLE or panel.by_generation:
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
    """Join the queries into one row for each evolution, or for each generation."""
    builder = _with_rows(builder, panel)
    for title, unit in panel.columns.values():
        own = [models.DynamicConfigValue("unit", unit)]
        if unit == "none" and title == "Generation":
            own.append(models.DynamicConfigValue("decimals", 0))
        if (link := panel.cell_links.get(title)) is not None:
            shown = {"title": link.title, "url": link.url, "targetBlank": link.new_tab}
            own.append(models.DynamicConfigValue("links", [shown]))
        builder = builder.override_by_name(title, own)
    return builder


def _bar_chart(builder: Any, panel: Panel) -> Any:
    """Draw bars for each generation. A bar chart needs the generation as text."""
    first, *_ = panel.columns
    title, _ = panel.columns[first]
    text = {"conversions": [{"targetField": title, "destinationType": "string"}], "fields": {}}
    as_text = models.DataTransformerConfig(id_val="convertFieldType", options=text)
    builder = _with_rows(builder, panel).with_transformation(as_text)
    legend = (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(shapes.LegendDisplayMode.LIST)
        .placement(shapes.LegendPlacement.BOTTOM)
        .calcs([])
    )
    tooltip = common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI)
    return (
        builder.x_field(title)
        .orientation(shapes.VizOrientation.VERTICAL)
        .stacking(shapes.StackingMode.NORMAL if panel.stacked else shapes.StackingMode.NONE)
        .legend(legend)
        .tooltip(tooltip)
    )


def _with_rows(builder: Any, panel: Panel) -> Any:
    """Transform the results of the queries into the rows of a table."""
    fields = list(panel.columns)
    names = {name: title for name, (title, _) in panel.columns.items()}
    steps: list[tuple[str, dict[str, Any]]]
    if panel.by_generation:
        key, *values = fields
        groups = {key: {"operation": "groupby", "aggregations": []}}
        groups |= {n: {"operation": "aggregate", "aggregations": [_FIRST]} for n in values}
        evaluated = {"fieldName": key, "config": {"id": "isNotNull", "options": {}}}
        fields = [key, *(f"{name} ({_FIRST})" for name in values)]
        names = dict(zip(fields, names.values(), strict=True))
        steps = [
            ("joinByField", {"byField": "Time", "mode": "outer"}),
            ("filterByValue", {"filters": [evaluated], "match": "all", "type": "include"}),
            ("groupBy", {"fields": groups}),
        ]
    else:
        keep = {"include": {"names": fields}}
        steps = [("merge", {}), ("filterFieldsByName", keep)]
    order = {name: index for index, name in enumerate(fields)}
    steps.append(("organize", {"indexByName": order, "renameByName": names, "excludeByName": {}}))
    for name, options in steps:
        step = models.DataTransformerConfig(id_val=name, options=options)
        builder = builder.with_transformation(step)
    return builder


#: The value of a group of points: its first one.
_FIRST = "firstNotNull"
_STYLES = {
    Kind.STAT: _stat,
    Kind.LINES: _lines,
    Kind.BARS: _lines,
    Kind.BAR_CHART: _bar_chart,
    Kind.GAUGES: _gauges,
    Kind.HEATMAP: _heatmap,
    Kind.STATES: _states,
    Kind.TABLE: _table,
}
