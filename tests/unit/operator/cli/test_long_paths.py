"""A long path is never broken, neither in a terminal of 80 columns nor in a pipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from tests.support import recorded
from tests.support.selfemo_commands import invoke
from tests.support.terminal_screen import Screen

from selfemo_api.text.files import write_atomically
from selfemo_operator.local.state import LocalState

PROGRAM = str(Path(sys.executable).parent / "selfemo")
END = recorded.evolution()
#: A part of a path that makes it longer than any terminal, with what rich could take for markup.
LONG = "/".join(["a-folder-with-a-long-name", "[x]", "and-another-one"] * 5)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / LONG
    folder.mkdir(parents=True)
    assert len(str(folder)) > 200
    state = LocalState(folder / "state" / "default" / "demo")
    state.save(END)
    state.close()
    document = {"apiVersion": END.api_version, "kind": END.kind, "metadata": {"name": "demo"}}
    (folder / "demo.yaml").write_text(yaml.safe_dump({**document, "spec": END.written}))
    return folder


def commands(place: Path) -> dict[str, tuple[list[str], str]]:
    """Return commands, and the path that each prints."""
    file, state = str(place / "demo.yaml"), str(place / "state")
    return {
        "validate": (["validate", file], f"{file} is valid"),
        "status": (["status", "demo", "--state", state], f"{state}/default/demo"),
        "list of nothing": (["list", "--state", f"{state}/none"], f"no runs in {state}/none"),
        "no such run": (["status", "x", "--state", state], f"no run `x` below {state}"),
        "no such file": (["run", f"{place}/none.yaml"], f"{place}/none.yaml: cannot be read"),
        "init": (["init", f"{place}/new.yaml", "--preset", "MELD"], f"Wrote {place}/new.yaml"),
        "init again": (["init", file], f"{file} already exists"),
        "stop": (["stop", "demo", "--state", state, "-o", "json"], f'"{state}/default/demo"'),
    }


@pytest.mark.parametrize("name", list(commands(Path())))
def test_in_a_pipe(name: str, place: Path) -> None:
    words, text = commands(place)[name]
    outcome = invoke("selfemo", *words)
    assert text in outcome.out + outcome.err


@pytest.mark.parametrize("name", ["validate", "status", "init"])
def test_in_a_terminal(name: str, place: Path) -> None:
    """The terminal itself wraps lines: what the command writes has no line break in a path."""
    words, text = commands(place)[name]
    with Screen([PROGRAM, *words], columns=80) as screen:
        screen.end()
        assert text in screen.raw.decode()


def test_the_plan_of_a_run(place: Path) -> None:
    """The check is the one of the product: it is not part of this test."""
    script = (
        "import sys\n"
        "from selfemo_api.contract import ExitCode\n"
        "from selfemo_operator.cli import run\n"
        "class NoProblem:\n"
        "    exit_code = ExitCode.OK\n"
        "    def lines(self, kind): return []\n"
        "run.check_input = lambda request: NoProblem()\n"
        "from selfemo_operator.cli.main import main\n"
        "main()\n"
    )
    changes = [
        "--set",
        f"storage.uri=file://{place}/results",
        "--set",
        f"model.uri=file://{place}/m",
    ]
    words = ["run", str(place / "demo.yaml"), "--dry-run", "--state", f"{place}/state", *changes]
    with Screen([sys.executable, "-c", script, *words], columns=80) as screen:
        assert screen.end() == 0
        text = screen.raw.decode()
    for line in (
        f"Model: file://{place}/m",
        f"Results: file://{place}/results",
        f"State and logs: {place}/state/default/demo",
    ):
        assert line in text


def test_a_damaged_state(place: Path) -> None:
    path = place / "state" / "default" / "demo" / "evolution.json"
    write_atomically(path, "{")
    words = ["watch", str(place / "demo.yaml"), "--state", f"{place}/state"]
    outcome = invoke("selfemo", *words)
    assert f"{path} was written by another version" in outcome.err
    assert outcome.err.count("\n") == 1


def test_json_is_one_line(place: Path) -> None:
    words = ["list", "--state", f"{place}/state", "-o", "json"]
    outcome = invoke("selfemo", *words)
    assert json.loads(outcome.out)[0]["state"] == f"{place}/state/default/demo"
    assert outcome.out.count("\n") == 1
