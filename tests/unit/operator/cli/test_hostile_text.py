"""Text from outside never controls the terminal, and never breaks a command: every command."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support import recorded
from tests.support.selfemo_commands import APPS, Command, Outcome, all_commands, invoke

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import Stage, job_name
from selfemo_api.status import Phase
from selfemo_operator.cli import check, output_format, watch
from selfemo_operator.cli.check import CheckReport
from selfemo_operator.cli.entry_point import run_application
from selfemo_operator.cli.output_format import PlainConsole
from selfemo_operator.cli.terminal.evolution_view import StageProgress
from selfemo_operator.cli.terminal.progress import Progress
from selfemo_operator.cli.terminal.score_table import generation_table, plan_table
from selfemo_operator.cli.watch import follow
from selfemo_operator.local.state import JobFolder, LocalState, write_record
from selfemo_operator.planner.types import Failure, JobState, Observed, StageJob

#: Sets the title of the window, clears the screen, changes colors with C1, deletes, turns the
#: direction of text, and is markup that no tag opens.
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202e\u2028[/x][red]:smile:"
#: The same as an emotion, which may not have ASCII or C1 controls.
LABEL = "\u202e[/x]joy"
ROOT = Path(__file__).resolve().parents[4]
END = recorded.evolution()
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
LOGS = ["logs", "demo", "-o", "json"]
LEAVES = [c for c in all_commands() if not c.is_group]


def hostile_evolution() -> EmotionEvolution:
    """Return the recorded run with hostile text wherever a person, a file or a pod may put it."""
    spec = json.loads(END.spec.model_dump_json(by_alias=True, exclude_none=True))
    spec["dataset"]["labels"][0] = LABEL
    spec["model"]["uri"] = f"hf://owner/{HOSTILE}"
    stored = EmotionEvolution.model_validate({**END.to_json(), "spec": spec})
    conditions = [
        c.model_copy(update={"message": f"{c.message} {HOSTILE}"}) for c in stored.status.conditions
    ]
    history = [
        record.model_copy(update={"message": HOSTILE, "model_uri": f"s3://{HOSTILE}"})
        for record in stored.status.history
    ]
    changes: dict[str, Any] = {
        "conditions": conditions,
        "history": history,
        "last_failure": HOSTILE,
        "uri": f"s3://bucket/{HOSTILE}",
        "phase": Phase.RUNNING,
        "stage": Stage.TRAIN,
        "generation": 5,
        "completion_time": None,
    }
    return stored.model_copy(update={"status": stored.status.model_copy(update=changes)})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state folder with one run and the log of its stage."""
    folder = LocalState(tmp_path / "state" / "default" / "demo", "selfemo run")
    folder.save(hostile_evolution())
    job = JobFolder(folder.jobs / job_name("demo", 5, Stage.TRAIN, 1))
    job.path.mkdir()
    record = {"generation": 5, "stage": "Train", "attempt": 1}
    write_record(job, {**record, "createTime": "2026-11-28T18:00:00+00:00"})
    line = {"time": "2026-11-28T18:00:01", "level": "error", "message": HOSTILE, HOSTILE: HOSTILE}
    forged = {**line, "time": f"2026-11-28T{HOSTILE}"}
    lines = [json.dumps(line, ensure_ascii=False) for line in (line, forged)]
    lines = [*lines, f"a library {HOSTILE}".replace("\u2028", "")]
    job.log.write_text("\n".join(lines) + "\n")
    folder.close()
    return tmp_path / "state"


def is_clean(outcome: Outcome) -> bool:
    return not CONTROL.search(outcome.out + outcome.err)


@pytest.mark.parametrize(
    "words",
    [("list",), ("status", "demo"), ("watch", "demo", "--once"), ("logs", "demo")],
    ids=" ".join,
)
def test_a_stored_run(state: Path, words: tuple[str, ...]) -> None:
    outcome = invoke("selfemo", *words, "--state", str(state))
    assert outcome.code == 0, outcome.err
    assert is_clean(outcome), ascii(outcome.out)
    assert words == ("list",) or "[/x][red]:smile:" in outcome.out.replace("\n", "")


@pytest.mark.parametrize("words", [("list",), ("status", "demo")], ids=" ".join)
def test_json_is_the_stored_value(state: Path, words: tuple[str, ...]) -> None:
    outcome = invoke("selfemo", *words, "--state", str(state), "-o", "json")
    assert is_clean(outcome), ascii(outcome.out)
    content = json.loads(outcome.out)
    summary = content[0] if isinstance(content, list) else content
    assert summary["uri"] == f"s3://bucket/{HOSTILE}"


def test_logs_as_json_on_a_terminal(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert run_application(APPS["selfemo"], "selfemo", [*LOGS, "--state", str(state)]) == 0
    assert not CONTROL.search(terminal.getvalue()), ascii(terminal.getvalue())
    assert json.loads(terminal.getvalue().splitlines()[0])[HOSTILE] == HOSTILE


@pytest.mark.parametrize("terminal", [True, False])
def test_watch_and_run(terminal: bool) -> None:
    """The views are drawn without colors: rich's own sequences do not hide those of the text."""
    file = io.StringIO()
    console = PlainConsole(file=file, width=200, force_terminal=terminal, color_system=None)
    evolution = hostile_evolution()

    class Source:
        def read(self) -> tuple[EmotionEvolution, StageProgress]:
            return evolution, StageProgress(1, 2, metrics=HOSTILE, note=HOSTILE)

    follow(Source(), console, once=True, poll_seconds=0)
    console.print(plan_table(evolution))
    console.print(generation_table(evolution))
    text = re.sub(r"\x1b\[[0-9;?]*[hlmKA]", "", file.getvalue())
    assert not CONTROL.search(text), ascii(text)
    assert text.count("[/x][red]:smile:") >= 3


def test_lines_of_watch(capsys: pytest.CaptureFixture[str]) -> None:
    console = PlainConsole(width=200)
    forged = "an error\n2026-11-28T18:00:00Z Succeeded: all is well"
    status = hostile_evolution().status.model_copy(update={"last_failure": forged + HOSTILE})
    evolution = END.model_copy(update={"status": status})
    watch._ChangeLines(console).update(evolution, StageProgress(note=HOSTILE))
    text = capsys.readouterr().out
    assert not CONTROL.search(text), ascii(text)
    assert "\n  2026-11-28T18:00:00Z Succeeded" in text  # indented: a part of the line before


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_of_a_failing_stage(terminal: bool, tmp_path: Path) -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=200, force_terminal=terminal, color_system=None)
    state = LocalState(tmp_path / "default" / "demo", "selfemo run")
    running = StageJob("demo-g1", 1, Stage.TRAIN, 1, JobState.RUNNING)
    failure = Failure(HOSTILE, exit_code=1)
    failed = StageJob("demo-g1", 1, Stage.TRAIN, 1, JobState.FAILED, failure=failure)
    with Progress(console, state) as progress:
        progress.update(END, Observed((running,)))
        progress.update(END, Observed((failed,)))
    state.close()
    text = re.sub(r"\x1b\[[0-9;?]*[hlmKA]", "", file.getvalue()).replace("\r", "")
    assert not CONTROL.search(text), ascii(text)
    assert "[/x][red]:smile:" in text


def test_findings_of_a_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = {"field": HOSTILE, "message": HOSTILE}
    content = {kind: [finding] for kind in ("problems", "unavailable", "warnings")}
    monkeypatch.setattr(check, "check_input", lambda _: CheckReport({**content, "metrics": {}}))
    words = ("check", str(ROOT / "examples/demo.yaml"), "--state", str(tmp_path))
    outcome = invoke("selfemo", *words)
    assert outcome.code == 2
    assert is_clean(outcome), ascii(outcome.err)
    outcome = invoke("selfemo", *words, "-o", "json")
    assert is_clean(outcome), ascii(outcome.out)
    assert json.loads(outcome.out)["problems"] == [finding]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a valid evolution with a hostile label and model."""
    document = yaml.safe_load((ROOT / "examples/demo.yaml").read_text())
    document["spec"]["dataset"]["labels"][0] = LABEL
    document["spec"]["model"]["uri"] = f"hf://owner/{HOSTILE}"
    path = tmp_path / "hostile.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_a_resolved_spec(file: Path) -> None:
    printed = invoke("selfemo", "validate", str(file), "--resolve")
    assert (printed.code, printed.err) == (0, "")
    assert is_clean(printed), ascii(printed.out)
    spec = yaml.safe_load(printed.out)["spec"]
    assert spec["dataset"]["labels"][0] == LABEL
    assert spec["model"]["uri"] == f"hf://owner/{HOSTILE}"
    for options in (("--resolve",), ()):
        as_json = invoke("selfemo", "validate", str(file), *options, "-o", "json")
        assert is_clean(as_json), ascii(as_json.out)
        assert json.loads(as_json.out)["spec"]["model"]["uri"] == spec["model"]["uri"]


def test_problems_of_a_file(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    document["spec"][HOSTILE] = {HOSTILE: 1}
    document["spec"]["dataset"]["labels"][1] = f"{HOSTILE}\n"
    file.write_text(yaml.safe_dump(document))
    outcome = invoke("selfemo", "validate", str(file))
    assert outcome.code == 2
    assert is_clean(outcome), ascii(outcome.err)
    outcome = invoke("selfemo", "validate", str(file), "-o", "json")
    assert is_clean(outcome), ascii(outcome.out)
    assert json.loads(outcome.out)["kind"] == "BadInput"


@pytest.mark.parametrize("command", ["check", "convert"])
def test_speakers_and_labels_of_a_file(command: str, tmp_path: Path) -> None:
    turns = [
        {"speaker": HOSTILE, "text": f"Hi {HOSTILE}", "label": f"joy{HOSTILE}"},
        {"speaker": "B", "text": "Ho", "label": "anger"},
    ]
    name = HOSTILE.replace("/", "")
    source = tmp_path / f"talk{name}.jsonl"
    source.write_text(json.dumps({"id": HOSTILE, "turns": turns}) + "\n")
    options = ("--to", str(tmp_path / f"to{name}.jsonl")) if command == "convert" else ()
    for output in ("table", "json"):
        outcome = invoke("selfemo", "data", command, str(source), *options, "-o", output)
        assert "unexpected error" not in outcome.err
        assert outcome.out
        assert is_clean(outcome), ascii(outcome.out + outcome.err)
        if output == "json":
            assert name in json.loads(outcome.out).get("to", name)


@pytest.mark.parametrize("command", LEAVES, ids=lambda c: c.name)
def test_hostile_arguments(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command with a hostile argument and a hostile option: an error is clean."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / HOSTILE))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    for words in ((f"a{HOSTILE}.yaml",), (f"--{HOSTILE}",), (HOSTILE, HOSTILE)):
        for output in ((), ("-o", "json")):
            outcome = invoke(command.program, *command.words, *words, *output)
            assert is_clean(outcome), ascii(outcome.out + outcome.err)
            assert "unexpected error" not in outcome.err + outcome.out
            if output and outcome.out.startswith("{"):
                one_document = outcome.out.count("\n{") == 0
                texts = [outcome.out] if one_document else outcome.out.splitlines()
                assert all(json.loads(text) for text in texts)


def test_a_file_name_that_is_not_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    output_format.print_line(os.fsdecode(b"report-\xff.html"))
    assert capsys.readouterr().out == "report-\N{REPLACEMENT CHARACTER}.html\n"
