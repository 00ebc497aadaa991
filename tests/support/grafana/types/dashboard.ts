// The type of a dashboard in JSON, made of the types that Grafana generates from its schema.
// A literal of this type has no unknown field, and only values that Grafana knows.

import type { DataQuery } from '@grafana/schema';
import type {
  AnnotationQuery,
  Dashboard,
  DashboardLink,
  DataTransformerConfig,
  FieldConfig,
  MatcherConfig,
  Panel,
  RowPanel,
  VariableModel,
} from '@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen';
import type * as barchart from '@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen';
import type * as bargauge from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as stateTimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** A type as JSON: enumerations are their values, and what has a default may be absent. */
type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? `${T}` extends `${infer N extends number}` ? N : T
    : T extends boolean | null | undefined
      ? T
      : T extends Array<infer Item>
        ? Array<Json<Item>>
        : { [Key in keyof T]?: Json<T[Key]> };

/** A query of Prometheus. Its data source has no published types. */
type Query = Json<DataQuery> & {
  refId: string;
  expr: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  legendFormat?: string;
  range: boolean;
};

type PanelOf<Type extends string, Options, Custom> = Json<
  Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'transformations'>
> & {
  type: Type;
  options: Json<Options>;
  targets: Array<Query>;
  transformations?: Array<Json<Omit<DataTransformerConfig, 'options'>> & { id: string; options: unknown }>;
  fieldConfig: {
    defaults: Json<Omit<FieldConfig, 'custom'>> & { custom?: Json<Custom> };
    overrides: Array<{
      matcher: MatcherConfig;
      properties: Array<{ id: string; value?: unknown }>;
    }>;
  };
};

type AnyPanel =
  | PanelOf<'barchart', barchart.Options, barchart.FieldConfig>
  | PanelOf<'bargauge', bargauge.Options, {}>
  | PanelOf<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | PanelOf<'stat', stat.Options, {}>
  | PanelOf<'state-timeline', stateTimeline.Options, stateTimeline.FieldConfig>
  | PanelOf<'table', table.Options, table.FieldConfig>
  | PanelOf<'timeseries', timeSeries.Options, timeSeries.FieldConfig>;

/** The query of an annotation is not in Grafana's schema: it belongs to the data source. */
type Annotation = Json<AnnotationQuery> & { expr: string; step: string; titleFormat: string };

export type DashboardJson = Json<Omit<Dashboard, 'panels' | 'annotations' | 'links' | 'templating'>> & {
  annotations?: { list?: Array<Annotation> };
  links: Array<Json<DashboardLink>>;
  panels: Array<AnyPanel | Json<Omit<RowPanel, 'panels'>> & { type: 'row'; panels: [] }>;
  templating: { list: Array<Json<VariableModel>> };
};
