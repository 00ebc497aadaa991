"""`selfemo check`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from selfemo_api import dataset_labels
from selfemo_operator.cli import check
from selfemo_operator.cli.main import app

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def file(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an evolution of the demo's dialogues, in the current folder."""
    monkeypatch.chdir(tmp_path)
    demo = ROOT / "examples" / "demo"
    document: dict[str, Any] = {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": "demo"},
        "spec": {
            "recipe": "tests-v1",
            "model": {"uri": tiny_model.as_uri()},
            "dataset": {
                "labels": list(dataset_labels.MELD),
                "sources": [
                    {"name": "train", "uri": f"file://{demo}/train.jsonl", "use": "SelfPlay"},
                    {"name": "dev", "uri": "data://demo/dev.jsonl", "use": "Evaluation"},
                ],
            },
            "storage": {"uri": f"file://{tmp_path}/storage"},
        },
    }
    path = tmp_path / "evolution.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--data", f"demo={ROOT}/examples/demo"])


def test_an_input_without_a_problem(file: Path) -> None:
    result = run("check", str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("no problems found: ")
    summary, *estimate = result.stdout.splitlines()
    assert summary.endswith(" utterances; a model of 0.9 million parameters")
    assert estimate[0] == "1 generation at most"
    assert [line.split()[0] for line in estimate[2:]] == [
        *("SelfPlay", "Score", "Train", "Evaluate", "storage:", "stages:")
    ]
    assert list(file.parent.iterdir()) == [file]


def test_as_json(file: Path) -> None:
    result = run("check", str(file), "--output", "json", "--set", "dataset.labeledDialogues=9")
    content = json.loads(result.stdout)
    assert (result.exit_code, content["problems"], content["unavailable"]) == (0, [], [])
    assert sum(content["labelPrior"].values()) == pytest.approx(1)
    assert content["metrics"]["labeledUtterances"] > 9
    assert content["estimate"]["stages"]["SelfPlay"]["generated"] > 0
    result = run("check", str(file), "--output", "json", "--set", "model.uri=file:///nowhere")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["problems"] == [
        {"field": "model.uri", "message": "file:///nowhere does not exist"}
    ]


def test_problems_are_lines_on_standard_error(file: Path) -> None:
    changes = ["--set", "model.uri=file:///nowhere/[x]", "--set", "dataset.labeledDialogues=9999"]
    result = run("check", str(file), *changes)
    assert (result.exit_code, result.stdout) == (2, "")
    first, second = result.stderr.splitlines()
    assert first.startswith("dataset.labeledDialogues: is 9999, but file://")
    assert second == "model.uri: file:///nowhere/[x] does not exist"


def test_warnings_do_not_end_it(file: Path) -> None:
    result = run("check", str(file), "--set", "dataset.sources=" + json.dumps(_same_sources()))
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: dataset.sources[1]: ")
    assert result.stdout.startswith("no problems found: ")


def _same_sources() -> list[dict[str, str]]:
    source = {"name": "train", "uri": "data://demo/dev.jsonl", "use": "SelfPlay"}
    return [source, {**source, "name": "dev", "use": "Evaluation"}]


def test_a_dry_run_checks_and_prints_the_plan(file: Path) -> None:
    result = run("run", str(file), "--dry-run")
    assert result.exit_code == 0
    assert "Evolution demo" in result.stderr
    result = run("run", str(file), "--dry-run", "--set", "model.uri=file:///nowhere")
    assert (result.exit_code, result.stderr) == (2, "model.uri: file:///nowhere does not exist\n")
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("stderr", "code", "message"),
    [
        (
            "Traceback\nModuleNotFoundError: No module named 'tokenizers'\n",
            2,
            'this command requires the extra "jobs": run `tools/uv sync --inexact --extra jobs` '
            "in the checkout, or install the wheel with `[jobs]`",
        ),
        (
            "Traceback\nValueError: a bug\n",
            1,
            "the check ended without a result: ValueError: a bug",
        ),
        ("", 1, "the check ended without a result: it exited with code -9"),
    ],
)
def test_a_check_without_a_result(
    file: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, code: int, message: str
) -> None:
    def died(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, -9, "", stderr)

    monkeypatch.setattr(check.subprocess, "run", died)
    result = run("check", str(file))
    assert str(result.exception) == message
    assert result.exception.exit_code == code
