"""Starts a program of the jobs' package in a process of its own: it needs their libraries."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

from selfemo_api.command_errors import MISSING_EXTRA, wants_json
from selfemo_api.contract import ExitCode
from selfemo_api.text.extras import missing_extra_message, missing_extras
from selfemo_operator.cli import use
from selfemo_operator.cli.command import begin_command, global_options
from selfemo_operator.cli.exit_codes import exit_codes_help
from selfemo_operator.cli.session import SESSION
from selfemo_operator.local.state import RunnerError

#: The settings of a command whose program parses all options itself, ``--help`` included.
PASS_THROUGH: dict[str, Any] = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "help_option_names": [],
}


class PassThroughCommand(TyperCommand):
    """A command whose program parses all arguments, and gets them as they are, ``--`` included."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep all arguments in the context."""
        ctx.args = list(args)
        return []


def require_extras(*names: str) -> None:
    """Check that extras are installed.

    Parameters
    ----------
    names
        The names of the extras.

    Raises
    ------
    RunnerError
        If one is not. The message has how to install it.
    """
    missing = missing_extras(names)
    if missing:
        raise RunnerError(missing_extra_message(*missing), kind=MISSING_EXTRA)


@dataclass(frozen=True)
class JobProgram:
    """A program of the jobs' package, whose commands are commands of ``selfemo``."""

    module: str
    """The module that is the program, for example ``selfemo_jobs.base_models``."""
    group: str
    """The words before the name of a command, for example ``selfemo model``."""

    def add_command(
        self,
        app: typer.Typer,
        name: str,
        help_text: str,
        *,
        panel: str = "Commands",
        extras: Sequence[str] = ("jobs",),
        replace: bool = False,
    ) -> None:
        """Add a command of the program to an application.

        Parameters
        ----------
        app
            The application.
        name
            The name of the command.
        help_text
            What the command does.
        panel
            The section of the application's help that lists the command.
        extras
            The extras that the command needs, but for its help.
        replace
            Replace this process by the program, so that a signal to it reaches a server.
        """

        def command(context: typer.Context) -> None:
            self.run(name, context.args, extras=extras, replace=replace)

        app.command(
            name,
            help=inspect.cleandoc(help_text),
            cls=PassThroughCommand,
            rich_help_panel=panel,
            context_settings=PASS_THROUGH,
        )(command)

    def run(
        self, name: str, arguments: Sequence[str], *, extras: Sequence[str], replace: bool
    ) -> NoReturn:
        """Run a command of the program, and exit with its exit code.

        Parameters
        ----------
        name
            The name of the command.
        arguments
            The arguments after the name.
        extras
            The extras that the command needs, but for its help.
        replace
            Replace this process by the program.

        Raises
        ------
        typer.Exit
            When the program has ended.
        RunnerError
            If an extra is not installed.
        """
        whole = f"{self.group} {name}"
        begin_command(whole)
        SESSION.as_json = wants_json(arguments)
        asks_for_help = _asks_for_help(arguments)
        if not asks_for_help:
            require_extras(*extras)
        program = [sys.executable, "-m", self.module, *global_options([name, *arguments])]
        # the progress bars of libraries are switched off
        environment = {**os.environ, "TQDM_DISABLE": "1"}
        if replace and not asks_for_help:
            replace_process(program, environment)
        code = run_process(program, environment)
        if asks_for_help and code == ExitCode.OK:
            sys.stdout.write(_wrapped(exit_codes_help(whole)))
        raise typer.Exit(128 - code if code < 0 else code)


def add_use_commands(app: typer.Typer) -> None:
    """Add the commands that use a model to an application.

    Parameters
    ----------
    app
        The application.
    """
    program = JobProgram("selfemo_jobs.use_commands", "selfemo")
    for name, text in use.USE_COMMANDS.items():
        extras, replace = use.EXTRAS.get(name, ("jobs",)), name in use.SERVERS
        program.add_command(app, name, text, panel="Models", extras=extras, replace=replace)


def _asks_for_help(arguments: Sequence[str]) -> bool:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "-h" in own or "--help" in own


def replace_process(program: Sequence[str], environment: Mapping[str, str]) -> None:
    """Replace this process by a program.

    Parameters
    ----------
    program
        The program and its arguments.
    environment
        The environment variables of the program.
    """
    os.execve(program[0], list(program), environment)  # noqa: S606 - no shell


def run_process(program: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program, and return its exit code; negative if a signal ended it.

    Ctrl-C reaches the program too, and it may need a moment to end.

    Parameters
    ----------
    program
        The program and its arguments.
    environment
        The environment variables of the program.
    """
    with subprocess.Popen(program, env=environment) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def _wrapped(text: str) -> str:
    """Return a paragraph of a help text."""
    width = max(min(shutil.get_terminal_size().columns, 80) - 2, 50)
    lines = textwrap.wrap(
        text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    return "\n" + "\n".join(lines) + "\n"
