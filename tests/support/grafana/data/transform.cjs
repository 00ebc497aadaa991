// Applies the transformations of a panel to results of Prometheus, with Grafana's own code.
// Reads {transformations, results: [{refId, series: [{metric, values}]}]} from standard input, and
// writes the rows of the first frame as objects, whose keys are the names that Grafana displays.

const { readFileSync } = require('node:fs');
const path = require('node:path');

const modules = process.argv[2];
const data = require(path.join(modules, '@grafana/data'));
globalThis.window = { grafanaBootData: { settings: { featureToggles: {} } } }; // after the import
const { lastValueFrom } = require(path.join(modules, 'rxjs'));

const byId = new Map(Object.values(data.standardTransformers).map((one) => [one.id, one]));
data.standardTransformersRegistry.setInit(() =>
  [...byId.values()].map((one) => ({
    id: one.id,
    name: one.name,
    description: '',
    aliasIds: one.aliasIds ?? [],
    transformation: () => Promise.resolve(one),
  }))
);

// A frame as Grafana's data source makes it of a result with the format `table`.
function frameOf({ refId, series }, _, all) {
  const points = series.flatMap((one) => one.values);
  return data.toDataFrame({
    refId,
    fields: [
      { name: 'Time', type: 'time', config: {}, values: points.map(([time]) => time * 1000) },
      {
        name: all.length > 1 ? `Value #${refId}` : 'Value',
        type: 'number',
        config: {},
        values: points.map(([, value]) => parseFloat(value)),
      },
    ],
  });
}

async function main() {
  const { transformations, results } = JSON.parse(readFileSync(0, 'utf8'));
  const frames = await lastValueFrom(
    data.transformDataFrame(transformations, results.map(frameOf))
  );
  const rows = Array.from({ length: frames[0].length }, (_, index) =>
    Object.fromEntries(
      frames[0].fields.map((field) => [data.getFieldDisplayName(field), field.values[index]])
    )
  );
  process.stdout.write(JSON.stringify(rows));
}

main();
