"""Each fault is found, with its field and its whole line; and all that are there in one go."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.unit.jobs.stages.check.faults import FAULTS, Fault
from tests.unit.jobs.stages.check.world import World

from selfemo_api.contract import ExitCode
from selfemo_api.metrics import CheckMetric

ROOT = Path(__file__).resolve().parents[5]
TOGETHER = [fault for fault in FAULTS if fault.together]


def test_there_are_enough_faults_and_the_page_lists_each() -> None:
    assert len(FAULTS) >= 20
    assert len(TOGETHER) >= 8
    page = (ROOT / "docs" / "guides" / "check.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| `([^`]+)` \|$", page, re.MULTILINE)
    fields = dict(rows)
    for fault in FAULTS:
        name = fault.name[0].upper() + fault.name[1:]
        assert fields.get(name) == re.sub(r"\[\w+\]", "[…]", fault.line.partition(": ")[0]), name


def test_an_input_without_a_fault_has_no_findings(world: World) -> None:
    output, findings = world.check()
    assert findings.problems == findings.warnings == findings.unavailable == []
    assert output.metrics[CheckMetric.DIALOGUES] == 12
    assert output.metrics[CheckMetric.UTTERANCES] == 48
    assert output.metrics[CheckMetric.LABELED_UTTERANCES] == 8
    assert output.label_prior == {"neutral": 0.25, "joy": 0.25, "sadness": 0.25, "anger": 0.25}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_alone_is_found(world: World, fault: Fault) -> None:
    fault.plant(world)
    assert world.problems() == [fault.expected(world)]


def test_all_faults_are_found_in_one_go(world: World) -> None:
    for fault in TOGETHER:
        fault.plant(world)
    assert sorted(world.problems()) == sorted(fault.expected(world) for fault in TOGETHER)


def test_the_run_ends_before_any_other_stage(world: World) -> None:
    """`selfemo run` prints all problems, a line for each, and starts nothing else."""
    chosen = [f for f in TOGETHER if "rule" not in f.name and "storage" not in f.name]
    for fault in chosen:
        fault.plant(world)
    done = _selfemo(world, "run", "--state", str(world.folder / "state"))
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    lines = done.stderr.splitlines()
    assert f"BadInput: generation 0, Check: {len(chosen)} problems" in lines
    assert f"generation 0 Check    : {len(chosen)} problems" in lines
    for fault in chosen:
        assert lines.count(fault.expected(world)) == 1
    state = world.folder / "state" / "default" / "checked"
    assert [path.name for path in (state / "jobs").iterdir()] == ["checked-g000-check-1"]
    status = json.loads((state / "evolution.json").read_text())["status"]
    assert (status["phase"], status["stage"]) == ("Failed", "Check")
    assert not (world.folder / "storage").exists()


@pytest.mark.parametrize("command", [["check"], ["run", "--dry-run"]])
def test_the_commands_without_a_run_find_the_same(world: World, command: list[str]) -> None:
    for fault in TOGETHER:
        if "rule" not in fault.name:
            fault.plant(world)
    done = _selfemo(world, *command)
    assert (done.returncode, done.stdout) == (ExitCode.BAD_INPUT, "")
    expected = [f.expected(world) for f in TOGETHER if "rule" not in f.name]
    assert sorted(done.stderr.splitlines()) == sorted(expected)
    assert not (world.folder / ".selfemo").exists()


def _selfemo(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in the folder of an input, on the input's file."""
    file = world.folder / "evolution.yaml"
    file.write_text(yaml.safe_dump(world.document))
    command = [sys.executable, "-c", "from selfemo_operator.cli.main import main; main()"]
    return subprocess.run(
        [*command, *arguments, str(file)],
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
