"""The exit codes of each command: ``--help`` prints them, and the reference contains them."""

from __future__ import annotations

from collections.abc import Mapping

from selfemo_api.contract import ExitCode
from selfemo_operator.cli.use import USE_COMMANDS
from selfemo_operator.cli.watch import INTERRUPTED

_BAD_FILE = "the file or an option is not valid"
_NO_EVOLUTION = "there is no such evolution, or the API server refuses the request"
_NO_API_SERVER = "the API server does not respond"
_FOLLOWED: Mapping[int, str] = {
    ExitCode.OK: "the evolution succeeded (with --once, also if it has not finished)",
    ExitCode.INTERNAL: "the evolution failed or collapsed",
}
_BASE_MODEL: Mapping[int, str] = {
    ExitCode.OK: "the model is written",
    ExitCode.INTERNAL: "an unexpected error",
    ExitCode.BAD_INPUT: "an option or an input file is not valid",
}
_USE: Mapping[int, str] = {
    ExitCode.OK: "the command has done its work",
    ExitCode.INTERNAL: "an unexpected error",
    ExitCode.BAD_INPUT: "an option, an input file or a model is not valid",
    ExitCode.UNAVAILABLE: "the storage or the hub cannot be reached",
}

#: The meaning of each exit code, by command.
EXIT_CODES: Mapping[str, Mapping[int, str]] = {
    "selfemo run": {
        ExitCode.OK: "the evolution succeeded or is suspended, or --dry-run found no problem",
        ExitCode.INTERNAL: "the evolution failed or collapsed",
        ExitCode.BAD_INPUT: f"{_BAD_FILE}, or the evolution failed because of bad input",
        ExitCode.UNAVAILABLE: "another runner uses the same state folder",
        ExitCode.TERMINATED: "Ctrl-C stopped the run (the same command continues it)",
    },
    "selfemo check": {
        ExitCode.OK: "no problem was found",
        ExitCode.BAD_INPUT: f"the input has problems, or {_BAD_FILE}",
        ExitCode.UNAVAILABLE: "the storage or the hub does not respond",
    },
    "selfemo watch": {
        **_FOLLOWED,
        ExitCode.BAD_INPUT: f"the evolution failed because of bad input, there is no such run, or "
        f"{_BAD_FILE}",
        INTERRUPTED: "Ctrl-C (the evolution continues)",
    },
    "selfemo validate": {ExitCode.OK: "the file is valid", ExitCode.BAD_INPUT: _BAD_FILE},
    "selfemo report": {
        ExitCode.OK: "the report is written",
        ExitCode.BAD_INPUT: f"{_BAD_FILE}, or the report could not be written",
    },
    **{f"selfemo {name}": _USE for name in USE_COMMANDS},
    "selfemo data check": {
        ExitCode.OK: "no error was found (there may be warnings)",
        ExitCode.INTERNAL: "an unexpected error",
        ExitCode.BAD_INPUT: "the data has an error, or an option is not valid",
        ExitCode.UNAVAILABLE: "the storage or the hub cannot be reached",
    },
    "selfemo data convert": {
        ExitCode.OK: "the file is written",
        ExitCode.INTERNAL: "an unexpected error",
        ExitCode.BAD_INPUT: "the data has an error, or an option is not valid",
        ExitCode.UNAVAILABLE: "the storage or the hub cannot be reached",
    },
    "selfemo model tiny": _BASE_MODEL,
    "selfemo model prepare": {
        **_BASE_MODEL,
        ExitCode.UNAVAILABLE: "the package cannot be downloaded",
    },
    "selfemo model warm-start": _BASE_MODEL,
    "kubectl selfemo watch": {
        **_FOLLOWED,
        ExitCode.BAD_INPUT: f"the evolution failed because of bad input, {_NO_EVOLUTION}",
        ExitCode.UNAVAILABLE: f"{_NO_API_SERVER} at the start",
        INTERRUPTED: "Ctrl-C (the evolution continues)",
    },
    "kubectl selfemo logs": {
        ExitCode.OK: "kubectl printed the logs (any other exit code of kubectl is passed on)",
        ExitCode.BAD_INPUT: f"{_NO_EVOLUTION}, or kubectl is not installed",
        ExitCode.UNAVAILABLE: _NO_API_SERVER,
    },
    "kubectl selfemo suspend": {
        ExitCode.OK: "spec.suspend is set",
        ExitCode.BAD_INPUT: _NO_EVOLUTION,
        ExitCode.UNAVAILABLE: _NO_API_SERVER,
    },
    "kubectl selfemo resume": {
        ExitCode.OK: "spec.suspend is cleared",
        ExitCode.BAD_INPUT: _NO_EVOLUTION,
        ExitCode.UNAVAILABLE: _NO_API_SERVER,
    },
    "kubectl selfemo report": {
        ExitCode.OK: "the report is written",
        ExitCode.BAD_INPUT: f"{_NO_EVOLUTION}, or the report could not be written",
        ExitCode.UNAVAILABLE: _NO_API_SERVER,
    },
    "python -m selfemo_operator": {
        ExitCode.OK: "SIGTERM or SIGINT stopped the operator",
        ExitCode.BAD_INPUT: "an option is not valid, or the cluster's CRD is not the operator's",
        ExitCode.UNAVAILABLE: "the operator lost its Lease (a new process waits for it)",
    },
}


def exit_codes_help(command: str) -> str:
    """Return the exit codes of a command as one line for its help.

    Parameters
    ----------
    command
        The whole command, e.g. ``selfemo run``.

    Examples
    --------
    >>> exit_codes_help("selfemo validate")
    'Exit codes: 0 = the file is valid; 2 = the file or an option is not valid.'
    """
    codes = "; ".join(f"{int(code)} = {meaning}" for code, meaning in EXIT_CODES[command].items())
    return f"Exit codes: {codes}."
