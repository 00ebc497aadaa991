"""The generated parts of the chart, and what its README says of its values."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.integration.chart.helm import CHART, ROOT, Helm

pytestmark = pytest.mark.chart

TOOL = ROOT / "tools" / "chart.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_tool", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_value_without_a_comment_is_refused(tool: ModuleType) -> None:
    with pytest.raises(tool.ChartError, match=r"`a\.c` has no comment"):
        tool.read_values("a:\n  # said\n  b: 1\n  c: 2\n")


def test_types_follow_from_defaults_and_comments(tool: ModuleType) -> None:
    text = '# Many.\n# @schema {"enum": ["x", "y"]}\na: x\nb:\n  # Words.\n  c: 3\n# Free.\nd: {}\n'
    found = tool.schema(tool.read_values(text))["properties"]
    assert found["a"] == {"description": "Many.", "type": "string", "enum": ["x", "y"]}
    assert found["b"]["properties"]["c"] == {
        "description": "Words.",
        "type": "integer",
        "minimum": 0,
    }
    assert found["b"]["additionalProperties"] is False
    assert found["d"] == {"description": "Free.", "type": "object"}


def test_braces_in_the_crd_are_left_alone(tool: ModuleType, helm4: Helm, tmp_path: Path) -> None:
    text = (
        "# note\nkind: CustomResourceDefinition\nmetadata:\n  name: n\nspec:\n"
        "  text: '`a` {{ .Values.x }} {{- end }} }}'\n"
    )
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: c\nversion: 1.0.0\n")
    (tmp_path / "values.yaml").write_text("crds: {install: true, keep: true, annotations: {}}\n")
    (tmp_path / "templates" / "_h.tpl").write_text('{{ define "selfemo.labels" }}a: b{{ end }}')
    (tmp_path / "templates" / "crd.yaml").write_text(tool.crd_template(text))
    (made,) = helm4.template(None, tmp_path)
    assert made["spec"] == {"text": "`a` {{ .Values.x }} {{- end }} }}"}


@pytest.mark.parametrize("name", ["README.md", "templates/NOTES.txt"])
def test_values_that_are_written_about_exist(name: str) -> None:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    text = (CHART / name).read_text()
    named = re.findall(r"--set '?([\w.]+)=", text) + re.findall(r"\.Values\.([\w.]+)", text)
    assert named
    for path in named:
        node: Any = values
        for key in path.split("."):
            assert isinstance(node, dict)
            if node == {}:  # free below here
                break
            assert key in node, f"{name}: no value {path}"
            node = node[key]
