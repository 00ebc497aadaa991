"""Objects of the Prometheus operator's kinds, decoded strictly into its own Go types.

The API server of the tests has no CRDs of them. Objects of Kubernetes' own kinds are admitted by it
in `test_install.py`. The types of GrafanaDashboard are in no Go module: `test_additions.py` has all
of its fields.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.chart.helm import VALUES, Helm
from tests.support.cluster.fixtures import program_or_skip

pytestmark = [pytest.mark.chart, pytest.mark.slow]

Json = dict[str, Any]
GROUP = "monitoring.coreos.com"
RELABELING = {"sourceLabels": ["__name__"], "regex": "python_.*", "action": "drop"}
#: Each value that ends up in such an object.
SCRAPE = {
    "enabled": True,
    "interval": "30s",
    "scrapeTimeout": "10s",
    "relabelings": [RELABELING],
    "metricRelabelings": [RELABELING],
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
}
ALL: Json = {
    "metrics": {
        "serviceMonitor": SCRAPE,
        "podMonitor": SCRAPE,
        "rules": {
            "enabled": True,
            "alertLabels": {"team": "a"},
            "alerts": {"SelfemoOperatorDown": {"for": "2h", "keepFiringFor": "5m"}},
        },
    },
}


def problems(objects: list[Json]) -> tuple[int, str]:
    """Return the exit code and the output of the program that decodes objects."""
    result = subprocess.run(
        [str(program_or_skip("kinds", "SELFEMO_KINDS"))],
        input=yaml.safe_dump_all(objects),
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return result.returncode, result.stdout + result.stderr


def of_the_prometheus_operator(objects: list[Json]) -> list[Json]:
    return [o for o in objects if o["apiVersion"].partition("/")[0] == GROUP]


@pytest.mark.parametrize("values", [VALUES / "monitoring.yaml", ALL], ids=["file", "all"])
def test_objects_have_the_types_of_their_projects(helm4: Helm, values: Path | Json) -> None:
    objects = of_the_prometheus_operator(helm4.template(values))
    assert {o["kind"] for o in objects} == {"ServiceMonitor", "PodMonitor", "PrometheusRule"}
    assert problems(objects) == (0, f"{len(objects)} objects have the types of their projects\n")


def test_mistakes_are_found(helm4: Helm) -> None:
    objects = of_the_prometheus_operator(helm4.template(ALL))
    for document in objects:
        document["spec"]["misspelled"] = 1
    objects.append({"apiVersion": "monitoring.coreos.com/v1", "kind": "Probe"})
    code, text = problems(objects)
    assert code == 1
    lines = [line for line in text.splitlines() if 'unknown field "misspelled"' in line]
    assert len(lines) == len(objects) - 1
    assert "Probe is not a known kind" in text
