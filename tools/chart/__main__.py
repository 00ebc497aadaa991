"""Generates the generated files of the Helm chart: ``python -m tools.chart [--check]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml
from tools.chart.arguments import arguments_template, environment_problems, setting_problems
from tools.chart.chart_yaml import chart_yaml, project
from tools.chart.common import CHART, CRD, ROOT, ChartError
from tools.chart.crd_template import crd_template
from tools.chart.readme import readme
from tools.chart.reused_values import reused_values_template
from tools.chart.values import read_values
from tools.chart.values_schema import schema_text

from selfemo_operator.controller.objects.settings import declared_settings


def generated() -> dict[Path, str]:
    """Return the content of each generated file.

    Raises
    ------
    ChartError
        If the chart and the operator's settings do not match.
    """
    settings = list(declared_settings())
    values = read_values((CHART / "values.yaml").read_text())
    deployment = (CHART / "templates" / "deployment.yaml").read_text()
    problems = setting_problems(values, settings) + environment_problems(deployment, settings)
    if problems:
        raise ChartError("\n".join(problems))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    return {
        CHART / "templates" / "crd.yaml": crd_template(CRD.read_text()),
        CHART / "templates" / "_arguments.tpl": arguments_template(settings),
        CHART / "templates" / "_reused-values.tpl": reused_values_template(values, settings),
        CHART / "values.schema.json": schema_text(values),
        CHART / "README.md": readme((CHART / "README.md").read_text(), values),
        CHART / "Chart.yaml": chart_yaml((CHART / "Chart.yaml").read_text(), project(), defaults),
    }


def main() -> int:
    """Write the files, or with ``--check`` report the stale ones; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.chart")
    parser.add_argument("--check", action="store_true", help="fail if a file is stale")
    check = parser.parse_args().check
    stale = 0
    for path, text in generated().items():
        if path.is_file() and path.read_text() == text:
            continue
        if check:
            stale += 1
            name = path.relative_to(ROOT)
            sys.stderr.write(f"{name} is stale: run `make generate` and commit it\n")
        else:
            path.write_text(text)
    return 1 if stale else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ChartError as error:
        sys.exit(str(error))
