"""Errors of all kinds as a line and as JSON; the options that every command has."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from tests.support.selfemo_commands import invoke

from selfemo_api.contract import ExitCode
from selfemo_operator.cli import entry_point
from selfemo_operator.cli.command import application, command
from selfemo_operator.cli.parameters import Output, OutputOption
from selfemo_operator.cli.session import SESSION
from selfemo_operator.local.state import RunnerError

PROGRAM = str(Path(sys.executable).parent / "selfemo")


def raising(error: BaseException) -> typer.Typer:
    """Return an application whose command `check` raises an error."""
    app = application("selfemo", "An application.")

    @app.callback()
    def root() -> None:
        """Do nothing."""

    @command(app, "check", "Commands")
    def failing(output: OutputOption = Output.TABLE) -> None:
        """Fail."""
        del output
        raise error

    return app


def ended(app: typer.Typer, *words: str) -> int:
    return entry_point.run_application(app, "selfemo", ["check", *words])


@pytest.mark.parametrize(
    ("error", "code", "kind", "message"),
    [
        (RunnerError("no such run"), 2, "BadInput", "no such run"),
        (RunnerError("away", ExitCode.UNAVAILABLE), 75, "Unavailable", "away"),
        (RunnerError("ended", ExitCode.TERMINATED), 143, "Terminated", "ended"),
        (KeyboardInterrupt(), 130, "Interrupted", "interrupted"),
        (
            ModuleNotFoundError("No module named 'kubernetes'", name="kubernetes.config"),
            2,
            "MissingExtra",
            'this command requires the extra "operator": run `tools/uv sync --inexact --extra '
            "operator` in the checkout, or install the wheel with `[operator]`",
        ),
        (
            PermissionError(errno.EROFS, "Read-only file system", "/data/x"),
            2,
            "BadInput",
            f"/data/x: Read-only file system: grant this user ({os.geteuid()}) permission, or "
            "choose another location",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "BadInput",
            "disk full: free space or choose another location, then run the same command again",
        ),
        (
            ValueError("a bug\nin two lines"),
            1,
            "Internal",
            "unexpected error: ValueError: a bug (--verbose prints the traceback)",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line_or_one_object(
    error: BaseException,
    code: int,
    kind: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = raising(error)
    assert ended(app) == code
    assert capsys.readouterr() == ("", f"selfemo check: {message}\n")
    assert ended(app, "-o", "json") == code
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {"error": message, "kind": kind, "exitCode": code}


def test_verbose_prints_where_an_unexpected_error_comes_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ended(raising(ValueError("a bug")), "-v") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in failing" in err
    assert err.endswith("selfemo check: unexpected error: ValueError: a bug\n")


def test_control_characters_of_an_error_do_not_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ended(raising(RunnerError("a\x1b[31mb"))) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_output_that_is_not_utf_8(tmp_path: Path) -> None:
    process = subprocess.run(
        [PROGRAM, "init", "对.yaml", "--data", "对"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout.startswith(b"Wrote \\u5bf9.yaml. Next:\n")


@pytest.mark.parametrize("words", [("-q", "list"), ("list", "-q"), ("list", "--quiet")])
def test_quiet_before_and_after_the_command(words: tuple[str, ...], tmp_path: Path) -> None:
    outcome = invoke("selfemo", *words, "--state", str(tmp_path))
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert SESSION.quiet
    assert "no runs in" in invoke("selfemo", "list", "--state", str(tmp_path)).err
    assert not SESSION.quiet


def test_quiet_reaches_the_programs_of_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[list[str]] = []

    def run(program: list[str], _environment: object) -> int:
        programs.append(program[3:])
        return 0

    monkeypatch.setattr("selfemo_operator.cli.job_program.run_process", run)
    app = __import__("selfemo_operator.cli.main", fromlist=["app"]).app
    words = ["-q", "--verbose", "model", "tiny", "--to", "x"]
    assert entry_point.run_application(app, "selfemo", words) == 0
    assert programs == [["tiny", "--quiet", "--verbose", "--to", "x"]]


def test_a_signal_that_ends_a_program_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "selfemo_operator.cli.job_program.run_process", lambda *_: -int(signal.SIGKILL)
    )
    app = __import__("selfemo_operator.cli.main", fromlist=["app"]).app
    assert entry_point.run_application(app, "selfemo", ["model", "tiny", "--to", "x"]) == 137


@pytest.mark.parametrize("program", ["selfemo", "kubectl selfemo"])
def test_version(program: str) -> None:
    outcome = invoke(program, "--version")
    assert (outcome.code, outcome.out) == (0, f"selfemo {version('selfemo')}\n")


@pytest.mark.parametrize("words", [(), ("data",), ("model",)])
def test_without_a_command_the_help_is_printed(words: tuple[str, ...]) -> None:
    outcome = invoke("selfemo", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"Usage: {' '.join(['selfemo', *words])} [OPTIONS] COMMAND")


def test_a_closed_pipe_prints_no_traceback() -> None:
    process = subprocess.Popen(
        f"{PROGRAM} schema | head -c 1", shell=True, stderr=subprocess.PIPE, text=True
    )
    assert process.communicate(timeout=60)[1] == ""


def test_ctrl_c_ends_a_program_of_the_jobs_with_130(tmp_path: Path) -> None:
    """The program and the command receive the signal, as in a terminal."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if 'selfemo_jobs.data_commands' in ' '.join(sys.orig_argv):\n"
        "    import selfemo_jobs.runtime.command_line as c\n"
        "    wait = lambda **_: (print('ready', flush=True), time.sleep(60))\n"
        "    c.configure_command_logging = wait\n"
    )
    process = subprocess.Popen(
        [PROGRAM, "data", "check", "x"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"selfemo data check: interrupted\n", err)
