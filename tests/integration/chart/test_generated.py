"""The generated parts of the chart, and the values that its README and notes mention."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools.chart.arguments import arguments_template, environment_problems, setting_problems
from tools.chart.chart_yaml import chart_yaml
from tools.chart.common import ChartError
from tools.chart.crd_template import crd_template
from tools.chart.reused_values import reused_values_template
from tools.chart.values import read_values
from tools.chart.values_schema import schema

from selfemo_api.schema.validation import check
from selfemo_operator.controller.objects.settings import (
    DeclaredSetting,
    Setting,
    declared_settings,
)
from tests.integration.chart.helm import CHART, ROOT, Helm

pytestmark = pytest.mark.chart


def test_generated_files_are_current() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tools.chart", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_value_without_a_comment_is_rejected() -> None:
    with pytest.raises(ChartError, match=r"`a\.c` has no comment"):
        read_values("a:\n  # Text.\n  b: 1\n  c: 2\n")


def test_types_follow_from_defaults_and_comments() -> None:
    text = '# Many.\n# @schema {"enum": ["x", "y"]}\na: x\nb:\n  # Words.\n  c: 3\n# Free.\nd: {}\n'
    properties = schema(read_values(text))["properties"]
    assert properties["a"] == {"description": "Many.", "type": "string", "enum": ["x", "y"]}
    assert properties["b"]["properties"]["c"] == {
        "description": "Words.",
        "type": "integer",
        "minimum": 0,
    }
    assert properties["b"]["additionalProperties"] is False
    assert properties["d"] == {"description": "Free.", "type": "object"}


def _declared(path: str, default: Any = MISSING, **setting: Any) -> DeclaredSetting:
    return DeclaredSetting((path,), type(default), default, Setting("Help.", **setting))


def test_every_setting_has_an_argument() -> None:
    template = arguments_template(list(declared_settings()))
    arguments = re.findall(r"^- (--[a-z-]+)", template, re.MULTILINE)
    assert arguments == [d.setting.flag for d in declared_settings() if d.setting.flag]


def test_an_option_that_the_chart_lacks_is_reported() -> None:
    settings = [*declared_settings(), _declared("speed", 3, flag="--speed")]
    with pytest.raises(ChartError, match="`--speed` is not in the chart"):
        arguments_template(settings)


@pytest.mark.parametrize("flag", ["--lease-name", "--health-port"])
def test_an_argument_that_the_operator_lacks_is_reported(flag: str) -> None:
    settings = [d for d in declared_settings() if d.setting.flag != flag]
    with pytest.raises(ChartError, match=f"no option `{flag}`"):
        arguments_template(settings)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (_declared("a", 3, flag="--a", value="operator.a", minimum=1, maximum=9), None),
        (_declared("a", 4, flag="--a", value="operator.a"), "the default of `--a`: 4"),
        (_declared("a", 3, flag="--a", value="operator.a", minimum=2), "the minimum of `--a`: 2"),
        (_declared("a", 3, flag="--a", value="operator.a", maximum=8), "the maximum of `--a`: 8"),
        (_declared("a", 3, flag="--a", value="operator.a", choices=("3",)), "the choices of `--a`"),
        (_declared("b", 3, flag="--b", value="operator.b"), "lacks `operator.b`, which sets `--b`"),
        (_declared("b", 3, flag="--b", value="operator.b"), "`operator.a` is not a setting"),
    ],
)
def test_a_value_that_differs_from_its_setting_is_reported(
    setting: DeclaredSetting, problem: str | None
) -> None:
    text = 'operator:\n  # A.\n  # @schema {"minimum": 1, "maximum": 9}\n  a: 3\n'
    problems = setting_problems(read_values(text), [setting])
    assert any(problem in text for text in problems) if problem else problems == []


def test_values_that_an_older_chart_lacks_are_looked_for() -> None:
    text = "a:\n  # B.\n  b: 3\n  c:\n    # D.\n    d: x\n# E.\ne: {}\n"
    settings = [_declared("b", 3, flag="--b", value="a.b"), _declared("d", "x", value="a.c.d")]
    template = reused_values_template(read_values(text), settings)
    assert re.findall(r'^  "([\w.]+)"', template, re.MULTILINE) == ["a", "a.c", "a.b"]


def test_an_environment_variable_that_the_chart_lacks_is_reported() -> None:
    settings = [_declared("name", env="POD_NAME")]
    assert environment_problems("env:\n  - name: POD_NAME\n", settings) == []
    (problem,) = environment_problems("env: []\n", settings)
    assert "POD_NAME" in problem


def chart_of(urls: dict[str, str]) -> dict[str, Any]:
    text = (CHART / "Chart.yaml").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    values["image"]["registry"] = "registry.example.org/team"
    project = {"version": "7.8.9", "urls": urls}
    once = chart_yaml(text, project, values)
    assert chart_yaml(once, project, values) == once
    document: dict[str, Any] = yaml.safe_load(once)
    return document


def test_the_charts_metadata_follows_from_other_files() -> None:
    urls = {"Homepage": "https://example.org", "Source": "https://example.org/source"}
    chart, bare = chart_of(urls), chart_of({})
    assert chart["version"] == chart["appVersion"] == "7.8.9"
    assert (chart["home"], chart["sources"]) == (urls["Homepage"], [urls["Source"]])
    assert not {"home", "sources"} & bare.keys()
    assert bare["icon"].startswith("data:image/svg+xml;base64,")
    annotations = {k.rpartition("/")[2]: v for k, v in bare["annotations"].items()}
    images, crds, examples, changes = (
        yaml.safe_load(annotations[key]) for key in ("images", "crds", "crdsExamples", "changes")
    )
    assert images == [
        {"name": "operator", "image": "registry.example.org/team/selfemo-operator:7.8.9"},
        {"name": "jobs", "image": "localhost/selfemo-jobs:7.8.9"},
    ]
    (crd,) = crds
    assert crd["name"] == "emotionevolutions.selfemo.dev"
    assert (crd["kind"], crd["version"]) == ("EmotionEvolution", "v1alpha1")
    assert crd["displayName"] == "Emotion Evolution"
    assert check(examples[0]) == []
    assert {change["kind"] for change in changes} <= {"added", "changed", "fixed", "removed"}


def test_braces_in_the_crd_are_escaped(helm4: Helm, tmp_path: Path) -> None:
    text = (
        "# note\nkind: CustomResourceDefinition\nmetadata:\n  name: n\nspec:\n"
        "  text: '`a` {{ .Values.x }} {{- end }} }}'\n"
    )
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: c\nversion: 1.0.0\n")
    (tmp_path / "values.yaml").write_text("crds: {install: true, keep: true, annotations: {}}\n")
    helper = '{{ define "selfemo.metadata" }}name: {{ .name }}{{ end }}'
    (tmp_path / "templates" / "_h.tpl").write_text(helper)
    (tmp_path / "templates" / "crd.yaml").write_text(crd_template(text))
    (rendered,) = helm4.template(None, tmp_path)
    assert rendered["spec"] == {"text": "`a` {{ .Values.x }} {{- end }} }}"}


@pytest.mark.parametrize("name", ["README.md", "templates/NOTES.txt"])
def test_documented_values_exist(name: str) -> None:
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    text = (CHART / name).read_text()
    named = re.findall(r"--set '?([\w.]+)=", text) + re.findall(r"\.Values\.([\w.]+)", text)
    assert named
    for path in named:
        node: Any = values
        for key in path.split("."):
            assert isinstance(node, dict)
            if node == {}:  # any keys are allowed below
                break
            assert key in node, f"{name}: no value {path}"
            node = node[key]
