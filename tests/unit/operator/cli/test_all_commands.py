"""Every command of both applications: its help, a wrong call, and a call without an extra."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.selfemo_commands import Command, all_commands, invoke

from selfemo_api.text.extras import EXTRAS
from selfemo_operator.cli.exit_codes import EXIT_CODES, exit_codes_help

ROOT = Path(__file__).resolve().parents[4]
COMMANDS = all_commands()
LEAVES = [c for c in COMMANDS if not c.is_group]
#: The commands whose words are not checked by a parser of their own.
WITHOUT_OUTPUT = {"selfemo schema"}

#: Libraries that take long to import. No help needs one.
HEAVY = (
    *("torch", "transformers", "trl", "deepspeed", "vllm", "ray", "daft", "pyarrow", "sklearn"),
    *("datasets", "gradio", "mlflow", "wandb", "trackio", "tensorboard", "boto3", "kubernetes"),
    *("kopf", "numpy", "huggingface_hub", "tokenizers"),
)


def by_name(command: Command) -> str:
    return command.name


def test_the_walk_has_all_commands() -> None:
    names = {c.name for c in LEAVES}
    assert names | {"python -m selfemo_operator"} == set(EXIT_CODES)
    assert len([c for c in LEAVES if c.is_program_of_the_jobs]) >= 5
    assert {c.name for c in COMMANDS if c.is_group} == {
        *("selfemo", "selfemo data", "selfemo model", "kubectl selfemo"),
    }


@pytest.mark.parametrize("command", COMMANDS, ids=by_name)
def test_help(command: Command) -> None:
    short = invoke(command.program, *command.words, "-h")
    long = invoke(command.program, *command.words, "--help")
    assert (short.code, short.err) == (0, "")
    assert short == long
    lines = short.out.splitlines()
    assert lines[0].startswith(f"Usage: {command.name} [")
    assert re.search(r"^  -h, --help +Show this message and exit\.$", short.out, re.MULTILINE)
    assert max(map(len, lines)) <= 80
    text = " ".join(short.out.split())
    assert " ".join(command.description.split()) in text
    if not command.is_group:
        assert exit_codes_help(command.name) in text
        assert "-q, --quiet" in text
        assert "-v, --verbose" in text


@pytest.mark.parametrize("command", COMMANDS, ids=by_name)
def test_a_wrong_call_is_one_line(command: Command) -> None:
    outcome = invoke(command.program, *command.words, "--no-such-option")
    assert (outcome.code, outcome.out) == (2, "")
    assert re.fullmatch(
        re.escape(command.name)
        + r": .+ \(`"
        + re.escape(command.name)
        + r" -h` prints the help\)\n",
        outcome.err,
    )


@pytest.mark.parametrize("command", LEAVES, ids=by_name)
def test_a_wrong_call_is_json_where_that_is_asked_for(command: Command) -> None:
    usage = invoke(command.program, *command.words, "-h").out
    if not re.search(r"-o, --output <table\|json", usage):
        pytest.skip("the command has no JSON")
    outcome = invoke(command.program, *command.words, "--no-such-option", "-o", "json")
    assert (outcome.code, outcome.err) == (2, "")
    content = json.loads(outcome.out)
    assert content.keys() == {"error", "kind", "exitCode"}
    assert (content["kind"], content["exitCode"]) == ("Usage", 2)
    assert outcome.out.count("\n") == 1


def test_a_mistyped_command_is_named() -> None:
    for program, word, meant in (
        ("selfemo", "rnu", "run"),
        ("selfemo", "validat", "validate"),
        ("kubectl selfemo", "wach", "watch"),
    ):
        error = invoke(program, word).err
        assert error.startswith(f"{program}: no such command: {word}: did you mean {meant}?")
    assert "did you mean check?" in invoke("selfemo", "data", "chek").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "x", "--stat", "y"), "no such option: --stat: did you mean --state?"),
        (("run", "x", "-o", "jsn"), "is not one of 'table', 'json': did you mean json?"),
        (("logs", "x", "--stage", "Trian"), "did you mean Train?"),
        (("data", "check", "x", "--formt", "y"), "no such option: --formt: did you mean --format?"),
        (("data", "check", "x", "--format", "jsonl"), ": did you mean JSONL?"),
        (
            ("model", "tiny", "--sed", "1", "--to", "x"),
            "option: --sed: did you mean --seed?",
        ),
        (("run",), "missing argument 'FILE'"),
        (("status",), "missing argument 'FILE|NAME'"),
        (("model", "tiny"), "the following arguments are required: --to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistyped_option_or_value_is_named(words: tuple[str, ...], message: str) -> None:
    outcome = invoke("selfemo", *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_no_help_imports_a_large_library() -> None:
    script = (
        "import sys\n"
        "from tests.support.selfemo_commands import all_commands, invoke\n"
        "for c in all_commands():\n"
        "    assert invoke(c.program, *c.words, '-h').code == 0, c.name\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}))\n"
    )
    done = _python("-c", script)
    assert done.returncode == 0, done.stderr
    assert set(HEAVY) & set(done.stdout.split()) == set()


#: Stops imports of the modules in SELFEMO_TEST_BLOCKED, in this process and in those it starts.
BLOCKER = """
import os, sys
class Blocked:
    names = os.environ["SELFEMO_TEST_BLOCKED"].split()
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""

#: The words after the name of a command with which it begins to work.
ARGUMENTS = {
    "run": ["FILE"],
    "check": ["FILE"],
    "validate": ["FILE"],
    "status": ["none"],
    "watch": ["none"],
    "logs": ["none"],
    "stop": ["none"],
    "report": ["FILE"],
    "init": ["FOLDER/new.yaml", "--preset", "MELD"],
    "data check": ["FOLDER"],
    "data convert": ["FOLDER", "--to", "FOLDER/x.jsonl"],
    "model tiny": ["--to", "FOLDER/tiny"],
    "model prepare": ["smollm2", "--to", "FOLDER/small"],
    "model warm-start": [
        *("--model", "FOLDER", "--to", "FOLDER/warm", "--source", "FILE", "--format", "JSONL"),
        *("--labels", "joy,anger", "--share", "0.5"),
    ],
    "predict": ["FOLDER", "FILE"],
    "respond": ["FOLDER", "FILE"],
    "chat": ["FOLDER"],
    "export": ["FOLDER", "FOLDER/copy"],
    "compare": ["FILE", "FILE"],
    "serve": ["FOLDER"],
    "playground": ["FOLDER"],
}
#: The commands that need only a part of the libraries of the jobs.
REPORTS = ("selfemo report", "selfemo compare")
#: The commands that a base install has.
BASE = ("validate", "list", "status", "watch", "logs", "stop", "init", "schema", "doctor")


def words_of(command: Command, file: Path) -> list[str]:
    words = ARGUMENTS.get(" ".join(command.words), [])
    if command.program == "kubectl selfemo" and command.words != ("list",):
        words = ["none"]
    places = {"FILE": str(file), "FOLDER": str(file.parent)}
    return [re.sub("FILE|FOLDER", lambda m: places[m[0]], word) for word in words]


@pytest.mark.parametrize("extra", ["jobs", "operator", "playground"])
def test_without_an_extra(extra: str, tmp_path: Path) -> None:
    """Each command works or says in one line which extra is missing: there is no traceback.

    Without the jobs, that is so for all commands. The other extras are those of a few commands.
    """
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    folder = tmp_path / "work"
    folder.mkdir()
    file = folder / "evolution.yaml"
    assert invoke("selfemo", "init", str(file), "--preset", "MELD").code == 0
    tried = [c for c in LEAVES if extra == "jobs" or needs(c.name, extra)]
    calls = [(c.program, c.words, words_of(c, file)) for c in tried]
    script = (
        "import json, sys\n"
        "from tests.support.selfemo_commands import invoke\n"
        "for program, words, arguments in json.loads(sys.argv[1]):\n"
        "    o = invoke(program, *words, *arguments)\n"
        "    print(json.dumps([' '.join([program, *words]), o.code, o.out, o.err]))\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    blocked = " ".join(EXTRAS[extra])
    environment = {"PYTHONPATH": path, "SELFEMO_TEST_BLOCKED": blocked, "KUBECONFIG": "/none"}
    done = _python("-c", script, json.dumps(calls), **environment)
    assert done.returncode == 0, done.stderr
    outcomes = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert outcomes.keys() == {c.name for c in tried} != set()
    for name, (code, out, err) in outcomes.items():
        assert "Traceback" not in out + err, name
        assert code in (0, 2), (name, out, err)
        if code and name != "selfemo doctor":
            assert err.startswith(f"{name}: "), name
            assert err.count("\n") == 1, (name, err)
        if needs(name, extra):
            assert code == 2, name
            wanted = "report" if name in REPORTS else extra
            assert f'"{wanted}' in err, (name, err)
            assert "tools/uv sync --inexact --extra" in err, name


def needs(name: str, extra: str) -> bool:
    program, _, command = name.rpartition("selfemo ")
    if program:
        return extra == "operator"
    if extra == "jobs":
        return command not in BASE
    return extra == command


def _python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
