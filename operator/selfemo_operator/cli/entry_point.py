"""Runs an application: each error is one line, or one JSON object, with an exit code."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from selfemo_api.command_errors import USAGE, report_error, unexpected_error, wants_json
from selfemo_api.contract import ExitCode
from selfemo_api.schema.validation import InvalidEvolution
from selfemo_api.text.stream_encoding import escape_missing_characters
from selfemo_api.text.suggestions import closest
from selfemo_operator.cli.session import SESSION
from selfemo_operator.local.state import RunnerError

_CHOICE = re.compile(r"'([^']*)' is not one of (.*)\.")
_NO_COMMAND = re.compile(r"No such command '(.*?)'\.?(?: Did you mean '(.*?)'.*)?")
_COMPLETION = ("--install-completion", "--show-completion")


def run_application(app: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command of an application, and return its exit code.

    Parameters
    ----------
    app
        The application.
    program
        The name of the program, e.g. ``kubectl selfemo``.
    arguments
        The arguments. None: those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    escape_missing_characters()
    SESSION.begin(program)
    executable = program.replace(" ", "-")
    complete_var = f"_{executable.replace('-', '_').upper()}_COMPLETE"
    # a shell completes the executable, not the words with which kubectl starts it
    name = executable if any(word.startswith(_COMPLETION) for word in words) else program
    try:
        code = typer.main.get_command(app).main(
            words, prog_name=name, complete_var=complete_var, standalone_mode=False
        )
    except typer.TyperException as error:
        return _report_usage(error, words)
    except (KeyboardInterrupt, typer.Abort):
        return report(RunnerError("interrupted", ExitCode.INTERRUPTED))
    except Exception as error:  # noqa: BLE001 - a bug is reported in one line, too
        return report(error)
    return code if isinstance(code, int) else ExitCode.OK


def report(error: Exception) -> int:
    """Report an error of the present command, and return the exit code.

    Parameters
    ----------
    error
        The error. One that is not expected is a bug.
    """
    more: dict[str, Any] = {}
    kind = ""
    if isinstance(error, InvalidEvolution):
        message, code = str(error), ExitCode.BAD_INPUT
        more["problems"] = problems_of(error)
    elif isinstance(error, RunnerError):
        message, code, kind = str(error), error.exit_code, error.kind
    else:
        message, code, kind = unexpected_error(error, verbose=SESSION.verbose)
    return report_error(SESSION.command, message, code, as_json=SESSION.as_json, kind=kind, **more)


def problems_of(error: InvalidEvolution) -> list[dict[str, Any]]:
    """Return the problems of a file as objects for JSON.

    Parameters
    ----------
    error
        The error of the file.
    """
    return [
        {"file": str(path), "field": p.field, "message": p.message, "line": p.line}
        for path, p in error.parts
    ]


def _report_usage(error: typer.TyperException, words: Sequence[str]) -> int:
    """Report a wrong call, or print the help if there is no argument. Return the exit code."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else SESSION.command
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{error.format_message()}\n")
        return ExitCode.BAD_INPUT
    message = f"{_usage_message(error)} (`{command} -h` prints the help)"
    return report_error(command, message, ExitCode.BAD_INPUT, as_json=wants_json(words), kind=USAGE)


def _usage_message(error: typer.TyperException) -> str:
    """Return what is wrong with a call, with the name that was probably meant."""
    option = getattr(error, "option_name", None)
    if option is not None and getattr(error, "possibilities", None) is not None:
        names = error.possibilities  # type: ignore[attr-defined]
        meant = closest(option, [name for name in names if name.startswith("--")])
        return f"no such option: {option}" + (f": did you mean {meant}?" if meant else "")
    message = error.format_message().replace("Value error, ", "")
    command = _NO_COMMAND.fullmatch(message)
    if command is not None:
        name, meant = command.groups()
        return f"no such command: {name}" + (f": did you mean {meant}?" if meant else "")
    choice = _CHOICE.search(message)
    meant = closest(choice[1], re.findall(r"'([^']*)'", choice[2])) if choice else None
    text = message.rstrip(".") + (f": did you mean {meant}?" if meant else "")
    return text[:1].lower() + text[1:]
