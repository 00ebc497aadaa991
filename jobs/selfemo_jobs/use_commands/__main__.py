"""``python -m selfemo_jobs.use_commands COMMAND``: what ``selfemo predict`` and others run.

Each command is a module with three names: ``HELP``, one line; ``add_arguments(parser)``; and
``run(arguments)``, which returns an exit code. A module imports heavy libraries in ``run`` only, so
that ``--help`` is fast. A module may have ``TAKES_REST = True``: then the arguments after ``--``
are not parsed, and ``arguments.rest`` has them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Protocol, cast

from selfemo_jobs.data_commands.options import set_data_volumes
from selfemo_jobs.runtime.command_line import CommandParser, run_command_line
from selfemo_jobs.runtime.threads import set_thread_defaults


class CommandModule(Protocol):
    """A module that is one command."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments to its parser."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command and return its exit code."""


#: The module of each command, by the command's name.
COMMANDS: Mapping[str, str] = {
    "playground": "selfemo_jobs.use_commands.playground",
    "predict": "selfemo_jobs.use_commands.predict",
    "respond": "selfemo_jobs.use_commands.respond",
    "chat": "selfemo_jobs.use_commands.chat",
    "export": "selfemo_jobs.use_commands.export",
    "compare": "selfemo_jobs.use_commands.compare",
    "serve": "selfemo_jobs.use_commands.serve",
}


def parser(names: Sequence[str] | None = None) -> CommandParser:
    """Return the parser of some commands.

    Parameters
    ----------
    names
        The names of the commands. None: all of them.
    """
    top = CommandParser(prog="selfemo", description="Use a model.")
    commands = top.add_subparsers(dest="command", required=True)
    for name in names if names is not None else COMMANDS:
        module = command_module(name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
    return top


def command_module(name: str) -> CommandModule:
    """Return the module of a command. Raises KeyError if there is no such command."""
    return cast(CommandModule, import_module(COMMANDS[name]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. An error that the user can act on is one line."""
    set_thread_defaults(os.environ)
    words = list(sys.argv[1:] if argv is None else argv)
    names = [words[0]] if words and words[0] in COMMANDS else None
    takes_rest = names is not None and getattr(command_module(names[0]), "TAKES_REST", False)
    end = words.index("--") if takes_rest and "--" in words else len(words)

    def run(arguments: argparse.Namespace) -> int:
        arguments.rest = words[end + 1 :]
        if getattr(arguments, "data", None):
            set_data_volumes(arguments.data)
        return command_module(arguments.command).run(arguments)

    return run_command_line(parser(names), run, words[:end])


if __name__ == "__main__":
    sys.exit(main())
