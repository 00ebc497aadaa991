"""The errors of all commands: one line of text, or one JSON object for programs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from selfemo_api.contract import ExitCode
from selfemo_api.os_errors import os_error_advice, reported_os_error
from selfemo_api.text.control_characters import json_text, printable, printable_lines
from selfemo_api.text.extras import extra_of, missing_extra_message

#: The kind of an error by its exit code, unless the error specifies a kind.
_KINDS = {
    ExitCode.INTERNAL: "Internal",
    ExitCode.BAD_INPUT: "BadInput",
    ExitCode.UNAVAILABLE: "Unavailable",
    ExitCode.INTERRUPTED: "Interrupted",
    ExitCode.TERMINATED: "Terminated",
}
#: The kind of an error in the command line itself: an option or an argument.
USAGE = "Usage"
#: The kind of an error of a command that requires an extra that is not installed.
MISSING_EXTRA = "MissingExtra"


def error_object(message: str, code: int, *, kind: str = "", **more: Any) -> dict[str, Any]:
    """Return an error as an object for JSON.

    Parameters
    ----------
    message
        What was wrong, where, and what to do.
    code
        The exit code of the command.
    kind
        The kind of the error. If empty, it is derived from the exit code.
    more
        Further fields.

    Examples
    --------
    >>> error_object("there is no run `demo`", 2)
    {'error': 'there is no run `demo`', 'kind': 'BadInput', 'exitCode': 2}
    """
    default = _KINDS.get(ExitCode(code), "Internal") if code in {*ExitCode} else "Internal"
    return {"error": message, "kind": kind or default, "exitCode": int(code), **more}


def report_error(
    program: str, message: str, code: int, *, as_json: bool = False, kind: str = "", **more: Any
) -> int:
    """Print an error, and return the exit code.

    As JSON, the error is one object on standard output, so standard output always contains the
    result or the error. Otherwise each line of the message is a line on standard error.

    Parameters
    ----------
    program
        The command, e.g. ``selfemo run``. It begins the line on standard error.
    message
        What was wrong, where, and what to do.
    code
        The exit code of the command.
    as_json
        Print a JSON object.
    kind
        The kind of the error. If empty, it is derived from the exit code.
    more
        Further fields of the object.
    """
    if as_json:
        content = error_object(message, code, kind=kind, **more)
        sys.stdout.write(json_text(content) + "\n")
        sys.stdout.flush()
    else:
        sys.stderr.write(
            "".join(printable(f"{program}: {line}") + "\n" for line in message.split("\n"))
        )
        sys.stderr.flush()
    return code


def unexpected_error(error: Exception, *, verbose: bool) -> tuple[str, ExitCode, str]:
    """Return the message, the exit code and the kind of an error that no command has raised itself.

    For a missing extra, a full disk or missing file permissions, the message includes advice. Every
    other error is a bug and is reported with the first line of its text.

    Parameters
    ----------
    error
        The error.
    verbose
        Print the traceback of a bug to standard error.

    Examples
    --------
    >>> unexpected_error(ValueError("no"), verbose=True)[0]
    'unexpected error: ValueError: no'
    """
    extra = extra_of(error.name or "") if isinstance(error, ModuleNotFoundError) else None
    if extra is not None:
        return missing_extra_message(extra), ExitCode.BAD_INPUT, MISSING_EXTRA
    reported = reported_os_error(error)
    advice = os_error_advice(reported) if reported is not None else None
    if advice is not None:
        return *advice, ""
    if verbose:
        sys.stderr.write(printable_lines("".join(traceback.format_exception(error))))
    lines = str(error).strip().splitlines() or [""]
    hint = "" if verbose else " (--verbose prints the traceback)"
    message = f"unexpected error: {type(error).__name__}: {lines[0]}{hint}"
    return message, ExitCode.INTERNAL, ""


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether the arguments of a command ask for JSON, even if they are not valid.

    Parameters
    ----------
    arguments
        The arguments of the command.

    Examples
    --------
    >>> wants_json(["run", "a.yaml", "-o", "json"]), wants_json(["list", "--output=json"])
    (True, True)
    >>> wants_json(["convert", "-o", "out.json"])
    False
    """
    forms = {"-ojson", "-o=json", "--output=json"}
    pairs = pairwise(arguments)
    return any(a in forms for a in arguments) or any(
        name in ("-o", "--output") and value == "json" for name, value in pairs
    )
