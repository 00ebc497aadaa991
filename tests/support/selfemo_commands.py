"""All commands of `selfemo` and `kubectl selfemo`, and a way to run each in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from selfemo_operator.cli import job_program, kubectl, main
from selfemo_operator.cli.entry_point import run_application

APPS = {"selfemo": main.app, "kubectl selfemo": kubectl.app}


@dataclass(frozen=True)
class Command:
    """A command, or a group of commands."""

    program: str
    words: tuple[str, ...]
    description: str
    is_group: bool
    is_program_of_the_jobs: bool

    @property
    def name(self) -> str:
        return " ".join((self.program, *self.words))


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def all_commands() -> list[Command]:
    """Return all commands and groups, made from the applications themselves."""
    return [c for name, app in APPS.items() for c in _below(name, (), typer.main.get_command(app))]


def _below(program: str, words: tuple[str, ...], command: Any) -> Iterator[Command]:
    inner = getattr(command, "commands", {})
    passes = isinstance(command, job_program.PassThroughCommand)
    yield Command(program, words, command.help or "", bool(inner), passes)
    for name, below in inner.items():
        yield from _below(program, (*words, name), below)


def invoke(program: str, *arguments: str) -> Outcome:
    """Run a command in this process, and return what it printed.

    A program of the jobs is run in this process, too.

    Parameters
    ----------
    program
        ``selfemo`` or ``kubectl selfemo``.
    arguments
        The words after the program.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _programs_in_this_process(),
    ):
        try:
            code: object = run_application(APPS[program], program, list(arguments))
        except SystemExit as end:
            code = end.code
    return Outcome(int(code) if isinstance(code, int) else 1, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _programs_in_this_process() -> Iterator[None]:
    """Let the programs of the jobs be functions of this process."""
    run, replace = job_program.run_process, job_program.replace_process

    def run_here(program: Sequence[str], environment: Mapping[str, str]) -> int:
        del environment
        assert program[:2] == [sys.executable, "-m"]
        module = importlib.import_module(f"{program[2]}.__main__")
        try:
            return int(module.main(program[3:]))
        except SystemExit as end:
            return int(end.code or 0)

    def replace_here(program: Sequence[str], environment: Mapping[str, str]) -> None:
        raise SystemExit(run_here(program, environment))

    job_program.run_process, job_program.replace_process = run_here, replace_here
    try:
        yield
    finally:
        job_program.run_process, job_program.replace_process = run, replace
