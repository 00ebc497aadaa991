"""The command line of the programs of the jobs: help, errors, JSON, exit codes."""

from __future__ import annotations

import argparse
import errno
import io
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from selfemo_api.contract import ExitCode
from selfemo_api.schema.strict_yaml import Problem
from selfemo_api.schema.validation import InvalidEvolution
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.runtime.command_line import CommandParser, add_output_option, run_command_line


def parser() -> CommandParser:
    top = CommandParser(prog="selfemo thing", description="Do a thing.")
    commands = top.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="make it", description="make it.\n\nTwo paragraphs.")
    make.add_argument("source", nargs="+", metavar="SOURCE", help="what is read")
    make.add_argument("--count", type=int, default=3, help="how many")
    make.add_argument("--kind", choices=["big", "small"], required=True, help="which kind")
    make.add_argument("--list", action="append", default=[], metavar="X", help="some of them")
    add_output_option(make)
    keep = commands.add_parser("keep", help="keep it")
    keep.add_argument("--output", "-o", metavar="FILE", help="the file")
    keep.add_argument("-v", action="store_true", help="a switch of its own")
    return top


def run(*words: str, action: Callable[[argparse.Namespace], int | None] = lambda _: None) -> int:
    return run_command_line(parser(), action, list(words))


def raising(error: BaseException) -> Callable[[argparse.Namespace], int | None]:
    def action(_: argparse.Namespace) -> int | None:
        raise error

    return action


def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        run("make", "-h")
    assert end.value.code == 0
    assert capsys.readouterr().out == (
        "Usage: selfemo thing make [OPTIONS] SOURCE...\n\n  Make it.\n\n  Two "
        "paragraphs.\n\nArguments:\n  SOURCE...  What is read.  [required]\n\nOptions:\n  "
        "--count <int>              How many.  [default: 3]\n  --kind <big|small>         Which "
        "kind.  [required]\n  --list X                   Some of them.\n  -o, --output "
        "<table|json>  The output format.  [default: table]\n  -q, --quiet                Print "
        "only results and errors.\n  -v, --verbose              Print verbose output, "
        "including tracebacks.\n  -h, --help               "
        "  Show this message and exit.\n"
    )


def test_help_of_the_program_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    out = capsys.readouterr().out
    assert out.startswith("Usage: selfemo thing [OPTIONS] COMMAND [ARGS]...\n\n  Do a thing.\n")
    assert "Commands:\n  make  Make it.\n  keep  Keep it.\n" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("make", "selfemo thing make: the following arguments are required: SOURCE, --kind"),
        ("make x --kind big --cuont 2", "no such option: --cuont: did you mean --count?"),
        ("make x --kind big --elephant", "no such option: --elephant (`selfemo thing make -h`"),
        ("make x --kind bog", "(choose from 'big', 'small'): did you mean big?"),
        ("make x --kind big --count three", "argument --count: invalid int value: 'three'"),
        ("make x --kin big", "the following arguments are required: --kind"),
        ("maek", "did you mean make? (`selfemo thing -h` prints the help)"),
        ("keep y", "selfemo thing keep: unexpected argument: y"),
        ("", "selfemo thing: the following arguments are required: command"),
    ],
)
def test_a_wrong_call_is_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words.split()) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_wrong_call_is_json_if_the_command_prints_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("make", "x", "-o", "json") == 2
    out, err = capsys.readouterr()
    assert (json.loads(out)["kind"], json.loads(out)["exitCode"], err) == ("Usage", 2, "")
    # here -o is a file
    assert run("keep", "x", "-o", "json") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


INVALID = InvalidEvolution(Path("a.yaml"), [Problem("spec.x", "unknown field", 3)])


@pytest.mark.parametrize(
    ("error", "code", "kind", "message"),
    [
        (BadInput("x is bad: fix it"), 2, "BadInput", "x is bad: fix it"),
        (Unavailable("S3 is away"), 75, "Unavailable", "S3 is away"),
        (INVALID, 2, "BadInput", "a.yaml: spec.x: unknown field (line 3)"),
        (KeyboardInterrupt(), 130, "Interrupted", "interrupted"),
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
            ValueError("a bug\nwith two lines"),
            1,
            "Internal",
            "unexpected error: ValueError: a bug (--verbose prints the traceback)",
        ),
        (
            ModuleNotFoundError("No module named 'gradio'", name="gradio"),
            2,
            "MissingExtra",
            'this command requires the extra "playground": run `tools/uv sync --inexact --extra '
            "playground` in the checkout, or install the wheel with `[playground]`",
        ),
        (
            ModuleNotFoundError("No module named 'nothing'", name="nothing"),
            1,
            "Internal",
            "unexpected error: ModuleNotFoundError: No module named 'nothing' (--verbose prints "
            "the traceback)",
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
    words = ("make", "x", "--kind", "big")
    assert run(*words, action=raising(error)) == code
    assert capsys.readouterr() == ("", f"selfemo thing make: {message}\n")
    assert run(*words, "-o", "json", action=raising(error)) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {"error": message, "kind": kind, "exitCode": code}


def test_verbose_prints_where_an_unexpected_error_comes_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("make", "x", "--kind", "big", "--verbose")
    assert run(*words, action=raising(ValueError("a bug"))) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("selfemo thing make: unexpected error: ValueError: a bug\n")


@pytest.mark.parametrize(
    ("option", "lines"),
    [
        ("--quiet", ["WARNING the disk is full"]),
        ("", ["progress done=1 loss=0.1235", "WARNING the disk is full"]),
        ("-v", ["detail", "progress done=1 loss=0.1235", "WARNING the disk is full"]),
    ],
)
def test_the_log_is_text_for_people(
    option: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def action(_: argparse.Namespace) -> None:
        log = logging.getLogger("selfemo_jobs.thing")
        log.debug("detail")
        log.info("progress", extra={"fields": {"done": 1, "loss": 0.123456}})
        log.warning("the disk is full")

    assert run("make", "x", "--kind", "big", *option.split(), action=action) == 0
    assert capsys.readouterr().err.splitlines() == lines


def test_output_that_is_not_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(sink, "latin-1", write_through=True))
    words = ("make", "x", "--kind", "big")
    assert run(*words, action=lambda _: print("Zoë 对")) == 0
    assert sink.getvalue() == b"Zo\xeb \\u5bf9\n"


def test_an_option_of_the_command_itself_wins(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[argparse.Namespace] = []
    assert run("keep", "-v", "--verbose", action=kept.append) == 0
    assert (kept[0].v, kept[0].verbose, kept[0].quiet) == (True, True, False)
    assert capsys.readouterr() == ("", "")
