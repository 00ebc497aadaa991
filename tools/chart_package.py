"""Packages the Helm chart: ``python tools/chart_package.py [--registry REGISTRY] [--to FOLDER]``.

With a registry, its images are the chart's defaults, so that whoever installs the released chart
names none. `values.schema.json` and the README's table follow.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.cluster import binaries
from tools.chart.chart_yaml import chart_yaml, project
from tools.chart.common import CHART, ROOT, ChartError
from tools.chart.readme import readme
from tools.chart.values import read_values
from tools.chart.values_schema import schema_text


def with_registry(text: str, registry: str) -> str:
    r"""Return values.yaml with the registry of all images.

    Parameters
    ----------
    text
        The content of values.yaml.
    registry
        The registry, with the folder below it.

    Examples
    --------
    >>> with_registry("image:\n  registry: localhost\n", "registry.example.org/team")
    'image:\n  registry: registry.example.org/team\n'
    """
    text, count = re.subn(r"(?m)^( +registry: )localhost$", rf"\g<1>{registry}", text)
    if not count:
        raise ChartError("values.yaml has no `registry: localhost`")
    return text


def package(to: Path, registry: str) -> Path:
    """Package the chart, and return the file.

    Parameters
    ----------
    to
        The folder for the file.
    registry
        The registry of the images; empty: the chart's own default.
    """
    to.mkdir(parents=True, exist_ok=True)
    for earlier in to.glob("selfemo-*.tgz"):
        earlier.unlink()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "selfemo"
        shutil.copytree(CHART, copy)
        if registry:
            values = with_registry((copy / "values.yaml").read_text(), registry)
            (copy / "values.yaml").write_text(values)
            keys = read_values(values)
            (copy / "values.schema.json").write_text(schema_text(keys))
            page = copy / "README.md"
            page.write_text(readme(page.read_text(), keys))
            metadata = copy / "Chart.yaml"
            text = chart_yaml(metadata.read_text(), project(), yaml.safe_load(values))
            metadata.write_text(text)
        command = [str(binaries.program("helm")), "package", str(copy), "--destination", str(to)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return next(to.glob("selfemo-*.tgz"))


def main(argv: Sequence[str] | None = None) -> int:
    """Package the chart and print the path of the file."""
    parser = argparse.ArgumentParser(prog="python tools/chart_package.py", description=__doc__)
    parser.add_argument("--registry", default="", help="default: that of values.yaml")
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "chart")
    options = parser.parse_args(argv)
    sys.stdout.write(f"{package(options.to, options.registry)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
