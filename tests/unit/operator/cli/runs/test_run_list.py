"""`selfemo list`, `selfemo status`, and how a run is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from tests.support import recorded
from tests.support.selfemo_commands import Outcome, invoke

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage
from selfemo_api.status import Phase
from selfemo_operator.local.state import LocalState

END = recorded.evolution()


def named(name: str, namespace: str = "default", **status: object) -> EmotionEvolution:
    metadata = END.metadata.model_copy(update={"name": name, "namespace": namespace})
    changed = END.status.model_copy(update=status)
    return END.model_copy(update={"metadata": metadata, "status": changed})


def store(state: Path, evolution: EmotionEvolution) -> LocalState:
    metadata = evolution.metadata
    active = LocalState(state / metadata.namespace / metadata.name, "selfemo run")
    active.save(evolution)
    return active


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def selfemo(state: Path, *words: str) -> Outcome:
    return invoke("selfemo", *words, "--state", str(state))


def test_no_runs(state: Path) -> None:
    outcome = selfemo(state, "list")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", f"no runs in {state}\n")
    assert selfemo(state, "list", "-o", "json").out == "[]\n"
    assert selfemo(state, "list", "-q").err == ""


def test_a_namespace_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state" / "default").mkdir(parents=True)
    (tmp_path / "state" / "default").chmod(0o300)
    tmp_path.chmod(0o755)
    code = (
        "import os\n"
        "from selfemo_operator.cli.main import main\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "list", "--state", "state"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert re.fullmatch(
        r"selfemo list: \S*: Permission denied: grant this user \(\d+\) permission, .*\n",
        done.stderr,
    )


def test_a_state_folder_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = Path(__file__).parents[5] / "examples" / "demo.yaml"
    words = (str(path), "--state", str(tmp_path / "file" / "state"), "--data", f"demo={tmp_path}")
    outcome = invoke("selfemo", "run", *words)
    assert outcome.code == 2
    expected = f"{tmp_path}/file/state/default/demo/jobs: Not a directory: choose another location"
    assert expected in outcome.err


def test_a_row_for_each_run(state: Path) -> None:
    store(state, named("demo")).close()
    running = named(
        "other", "team", phase=Phase.RUNNING, stage=Stage.TRAIN, completion_time=None, best=None
    )
    active = store(state, running)
    lines = selfemo(state, "list").out.splitlines()
    assert lines[0].split("  ")[0] == "NAMESPACE"
    rows = [line.split() for line in lines[1:]]
    assert rows[0][:4] == ["default", "demo", "Succeeded", "5/5"]
    assert rows[0][-1] == "-"
    assert "0.3962 (generation 3)" in lines[1]
    assert rows[1][:5] == ["team", "other", "Running", "5/5", "Train"]
    assert rows[1][-2:] == ["process", str(os.getpid())]
    assert lines[0].index("RUNNER") == lines[2].index("process")
    active.close()
    assert selfemo(state, "list").out.splitlines()[2].endswith("none: stopped")


def test_list_as_json(state: Path) -> None:
    store(state, named("demo")).close()
    (row,) = json.loads(selfemo(state, "list", "-o", "json").out)
    assert row["name"] == "demo"
    assert row["best"]["f1"] == pytest.approx(0.3962, abs=1e-4)
    assert (row["active"], row["process"], row["phase"]) == (False, None, "Succeeded")
    assert row["state"] == str(state / "default" / "demo")


def test_a_damaged_run_is_a_warning(state: Path) -> None:
    store(state, named("demo")).close()
    store(state, named("old")).close()
    (state / "default" / "old" / "evolution.json").write_text("{}")
    outcome = selfemo(state, "list")
    assert (outcome.code, outcome.out.count("\n")) == (0, 2)
    assert outcome.err == (
        f"warning: {state}/default/old was written by another version of this command, or is "
        "damaged\n"
    )


def test_status_of_a_run_that_has_ended(state: Path) -> None:
    store(state, named("demo")).close()
    lines = dict(
        line.split(maxsplit=1) for line in selfemo(state, "status", "demo").out.splitlines()
    )
    assert lines["name"] == "default/demo"
    assert lines["phase"] == "Succeeded"
    assert lines["generation"] == "5 of at most 5"
    assert "best is 3" in lines["message"]
    assert lines["runner"] == "-"
    for row, time in (("started", END.status.start_time), ("ended", END.status.completion_time)):
        assert time is not None
        assert lines[row].startswith(f"{time:%Y-%m-%d %H:%M:%S} UTC (")
        assert time.utcoffset() == timedelta(0)


def test_status_of_a_run_in_progress(state: Path) -> None:
    running = named(
        "demo", phase=Phase.RUNNING, generation=4, stage=Stage.TRAIN, completion_time=None
    )
    active = store(state, running)
    folder = active.jobs / "demo-g004-train-1"
    folder.mkdir()
    progress = {"message": "progress", "done": 3, "total": 4, "loss": -0.0361}
    (folder / "log.jsonl").write_text(json.dumps(progress) + "\n")
    text = selfemo(state, "status", "demo").out
    assert "progress    3/4 loss -0.0361\n" in text
    assert f"process {os.getpid()}" in text
    content = json.loads(selfemo(state, "status", "demo", "-o", "json").out)
    assert content["progress"] == {"done": 3, "total": 4, "metrics": "loss -0.0361"}
    assert (content["active"], content["stage"]) == (True, "Train")
    large = {**progress, "done": 1234567, "total": 2500000}
    (folder / "log.jsonl").write_text(json.dumps(large) + "\n")
    assert "progress    1234567/2500000 loss" in selfemo(state, "status", "demo").out
    active.close()
    text = selfemo(state, "status", "demo").out
    assert "No runner is active: run the same `selfemo run` command to continue." in text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "demo.yaml"
    document = {"apiVersion": END.api_version, "kind": END.kind, "metadata": {"name": "demo"}}
    path.write_text(yaml.safe_dump({**document, "spec": END.written}))
    return path


def test_a_run_is_named_by_its_file_or_its_name(state: Path, file: Path) -> None:
    store(state, named("demo")).close()
    store(state, named("alone", "team")).close()
    for target in (str(file), "demo", "default/demo", "alone", "team/alone"):
        name = json.loads(selfemo(state, "status", target, "-o", "json").out)["name"]
        assert name == ("alone" if "alone" in target else "demo")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("dmo", "there is no run `dmo` below STATE: did you mean `demo`?"),
        ("team/dmo", "there is no run `team/dmo` below STATE: did you mean `team/demo`?"),
        ("zebra", "there is no run `zebra` below STATE: `selfemo list` lists the runs there"),
        ("none.yaml", "none.yaml: cannot be read: No such file or directory"),
        ("two", "there is no run `two` below STATE: did you mean"),
    ],
)
def test_a_run_that_is_not_there(state: Path, target: str, message: str) -> None:
    for evolution in (named("demo"), named("demo", "team"), named("twice"), named("tow", "team")):
        store(state, evolution).close()
    outcome = selfemo(state, "status", target)
    assert outcome.code == 2
    assert outcome.err.startswith(f"selfemo status: {message.replace('STATE', str(state))}")
    assert outcome.err.count("\n") == 1


def test_a_name_in_several_namespaces_is_not_guessed(state: Path) -> None:
    for namespace in ("a", "b"):
        store(state, named("demo", namespace)).close()
    assert "there is no run `demo`" in selfemo(state, "status", "demo").err
    assert selfemo(state, "status", "b/demo").code == 0


def test_a_file_with_several_evolutions_does_not_name_a_run(state: Path, file: Path) -> None:
    file.write_text(file.read_text() + "---\n" + file.read_text().replace("demo", "other"))
    assert selfemo(state, "status", str(file)).err == (
        f"selfemo status: {file} contains several evolutions: specify the name of one: demo, "
        "other\n"
    )


def test_a_run_that_has_not_begun(state: Path, file: Path) -> None:
    assert selfemo(state, "status", str(file)).err == (
        f"selfemo status: there is no run in {state}/default/demo: start it with `selfemo run "
        f"{file}`, or specify its state folder with --state\n"
    )


def test_control_characters_do_not_reach_the_terminal(state: Path) -> None:
    store(state, named("demo", last_failure="a\x1b[31mb")).close()
    assert "\x1b" not in selfemo(state, "status", "demo").out
