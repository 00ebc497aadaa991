"""The command line of the programs that a person starts: help, errors and exit codes.

They look and behave as the other commands of ``selfemo``, which typer parses: the same form of
help, one line for an error, a suggestion for a mistyped name, JSON errors with ``-o json``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from selfemo_api.command_errors import USAGE, report_error, unexpected_error, wants_json
from selfemo_api.contract import ExitCode
from selfemo_api.schema.validation import InvalidEvolution
from selfemo_api.text.stream_encoding import escape_missing_characters
from selfemo_api.text.suggestions import closest
from selfemo_jobs.errors import StageError
from selfemo_jobs.runtime.command_help import help_text
from selfemo_jobs.runtime.logging_setup import configure_command_logging

_CHOICE = re.compile(r"invalid choice: '?([^']*?)'? \(choose from (.*)\)")

#: The number of values of an argument that is a list.
_MANY = (argparse.ZERO_OR_MORE, argparse.ONE_OR_MORE)


class UsageError(Exception):
    """The words of a command are not valid: an option, an argument or a choice.

    Parameters
    ----------
    parser
        The parser of the command.
    message
        What is wrong.
    """

    def __init__(self, parser: CommandParser, message: str) -> None:
        super().__init__(message)
        self.parser = parser


class CommandParser(argparse.ArgumentParser):
    """A parser whose help has the form of the other commands, and whose errors are exceptions.

    Parameters
    ----------
    options
        The options of :class:`argparse.ArgumentParser`.
    """

    def __init__(self, **options: object) -> None:
        super().__init__(**{"allow_abbrev": False, "add_help": False, **options})  # type: ignore[arg-type]
        self.add_argument("-h", "--help", action="help", help="show this message and exit")

    def format_help(self) -> str:
        """Return the help of the command."""
        return help_text(self)

    def error(self, message: str) -> NoReturn:
        """Raise the error of a wrong call."""
        raise UsageError(self, message)

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse arguments. An unknown option of a command is an error of that command."""
        if self._subparsers is None:
            self._add_common_options()
        arguments, rest = super().parse_known_args(args, namespace)
        if rest and self._subparsers is None:
            self._add_to_list(arguments, rest)
            rest = []
        return arguments, rest

    def _add_to_list(self, arguments: argparse.Namespace, words: Sequence[str]) -> None:
        """Add words to the argument that is a list: argparse takes only those before an option."""
        lists = [action.dest for action in self._get_positional_actions() if action.nargs in _MANY]
        if not lists or any(word.startswith("-") and word != "-" for word in words):
            self.error(self._unknown(words))
        setattr(arguments, lists[-1], [*getattr(arguments, lists[-1]), *words])

    @property
    def offers_json(self) -> bool:
        """Whether the command can print its result as JSON."""
        return any(
            action.dest == "output" and "json" in (action.choices or ()) for action in self._actions
        )

    def _add_common_options(self) -> None:
        """Add the options that every command has, but for those that it defines itself."""
        common = (
            ("-q", "--quiet", "print only results and errors"),
            ("-v", "--verbose", "print verbose output, including tracebacks"),
        )
        for short, long, text in common:
            if long not in self._option_string_actions:
                names = [n for n in (short, long) if n not in self._option_string_actions]
                self.add_argument(*names, action="store_true", help=text)

    def _unknown(self, words: Sequence[str]) -> str:
        """Return the message of words that the command does not take."""
        word = words[0].partition("=")[0]
        if not word.startswith("-"):
            return f"unexpected argument: {' '.join(words)}"
        match = closest(word, self._option_string_actions)
        return f"no such option: {word}" + (f": did you mean {match}?" if match else "")


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for the output format, which is the same for all commands.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    parser.add_argument(
        "--output",
        "-o",
        choices=["table", "json"],
        default="table",
        help="the output format",
    )


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for data volumes, which is the same for all commands.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    parser.add_argument(
        "--data",
        action="append",
        metavar="NAME=FOLDER",
        help="the local folder for data://NAME/…. Can be repeated",
    )


def run_command_line(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], int | None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the words of a command, run it, and return its exit code. An error is one line.

    Parameters
    ----------
    parser
        The parser of the program, with a parser for each command.
    run
        Runs the command, and returns its exit code; None counts as success.
    argv
        The arguments. None: those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    escape_missing_characters()
    try:
        arguments = parser.parse_args(words)
    except UsageError as error:
        return _report_usage(error, words)
    command = getattr(arguments, "command", None)
    program = f"{parser.prog} {command}" if command else parser.prog
    as_json = getattr(arguments, "output", None) == "json"
    verbose = bool(getattr(arguments, "verbose", False))
    quiet = bool(getattr(arguments, "quiet", False))
    try:
        configure_command_logging(quiet=quiet, verbose=verbose)
        return run(arguments) or ExitCode.OK
    except (StageError, InvalidEvolution) as error:
        code = getattr(error, "exit_code", ExitCode.BAD_INPUT)
        return report_error(program, str(error), code, as_json=as_json)
    except BrokenPipeError:
        return _end_of_pipe()
    except KeyboardInterrupt:
        return report_error(program, "interrupted", ExitCode.INTERRUPTED, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - a bug is reported in one line, too
        message, code, kind = unexpected_error(error, verbose=verbose)
        return report_error(program, message, code, as_json=as_json, kind=kind)


def _report_usage(error: UsageError, words: Sequence[str]) -> int:
    """Report a wrong call, and return the exit code."""
    program = error.parser.prog
    as_json = error.parser.offers_json and wants_json(words)
    message = f"{_with_suggestion(str(error))} (`{program} -h` prints the help)"
    return report_error(program, message, ExitCode.BAD_INPUT, as_json=as_json, kind=USAGE)


def _with_suggestion(message: str) -> str:
    """Return a message of argparse, with the choice that was probably meant."""
    match = _CHOICE.search(message)
    if match is None:
        return message
    choices = [choice.strip(" '") for choice in match[2].split(",")]
    meant = closest(match[1], choices)
    return f"{message}: did you mean {meant}?" if meant else message


def _end_of_pipe() -> int:
    """Return the exit code where the reader of standard output has gone, e.g. `head`."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - Python flushes it at the exit
    return ExitCode.INTERNAL
