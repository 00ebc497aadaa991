"""The exit codes of each command: ``--help`` prints them, and the reference contains them."""

from __future__ import annotations

from collections.abc import Mapping

from selfemo_api.contract import ExitCode
from selfemo_operator.cli.use import USE_COMMANDS

_BAD_FILE = "the file or an option is not valid"
_NO_EVOLUTION = "there is no such evolution, no kubeconfig, or the API server rejects the request"
_NO_API_SERVER = "the API server does not respond"
_FOLLOWED: Mapping[int, str] = {
    ExitCode.OK: "the evolution succeeded (with --once, also if it has not finished)",
    ExitCode.INTERNAL: "the evolution failed or collapsed",
}
_BASE_MODEL: Mapping[int, str] = {
    ExitCode.OK: "the model was written",
    ExitCode.INTERNAL: "an unexpected error",
    ExitCode.BAD_INPUT: "an option or an input file is not valid",
}
_USE: Mapping[int, str] = {
    ExitCode.OK: "success",
    ExitCode.INTERNAL: "an unexpected error",
    ExitCode.BAD_INPUT: "an option, an input file or a model is not valid",
    ExitCode.UNAVAILABLE: "the storage or the Hub cannot be reached",
}
#: Where a command that uses a model has its own meaning of a code.
_OF_USE: Mapping[str, Mapping[int, str]] = {
    "predict": {
        ExitCode.OK: "all turns were predicted",
        ExitCode.UNAVAILABLE: "the storage or the Hub cannot be reached, or another process is "
        "writing the same file",
        ExitCode.INTERRUPTED: "Ctrl-C (with --to, the same command continues)",
    },
    "respond": {ExitCode.OK: "the replies were written"},
    "chat": {ExitCode.OK: "the chat ended"},
}

_REPORT: Mapping[int, str] = {
    ExitCode.OK: "the report was written",
    ExitCode.BAD_INPUT: f"{_BAD_FILE}, there is no such run, or the report could not be written",
}
_RUN: Mapping[int, str] = {
    ExitCode.OK: "the state was printed",
    ExitCode.BAD_INPUT: "there is no such run, or an option is not valid",
}
_CLUSTER: Mapping[int, str] = {
    ExitCode.BAD_INPUT: _NO_EVOLUTION,
    ExitCode.UNAVAILABLE: _NO_API_SERVER,
}
_CTRL_C = "Ctrl-C"

_SELFEMO: Mapping[str, Mapping[int, str]] = {
    "run": {
        ExitCode.OK: "the evolution succeeded or is suspended, or --dry-run found no problem",
        ExitCode.INTERNAL: "the evolution failed or collapsed",
        ExitCode.BAD_INPUT: f"{_BAD_FILE}, or the evolution failed because of bad input",
        ExitCode.UNAVAILABLE: "another runner uses the same state folder",
        ExitCode.INTERRUPTED: "Ctrl-C stopped the run (the same command continues it)",
        ExitCode.TERMINATED: "SIGTERM or `selfemo stop` stopped the run (the same command "
        "continues it)",
    },
    "check": {
        ExitCode.OK: "no problem was found",
        ExitCode.BAD_INPUT: f"the input has problems, or {_BAD_FILE}",
        ExitCode.UNAVAILABLE: "the storage or the Hub does not respond",
    },
    "validate": {ExitCode.OK: "all documents are valid", ExitCode.BAD_INPUT: _BAD_FILE},
    "list": {
        ExitCode.OK: "the list was printed",
        ExitCode.BAD_INPUT: "an option is not valid, or a folder cannot be read",
    },
    "status": _RUN,
    "watch": {
        **_FOLLOWED,
        ExitCode.BAD_INPUT: f"the evolution failed because of bad input, there is no such run, or "
        f"{_BAD_FILE}",
        ExitCode.INTERRUPTED: "Ctrl-C (the evolution continues)",
    },
    "logs": {**_RUN, ExitCode.OK: "the logs were printed"},
    "stop": {
        **_RUN,
        ExitCode.OK: "the run stopped, or was not running",
        ExitCode.BAD_INPUT: "there is no such run, or its process cannot be stopped from here",
        ExitCode.UNAVAILABLE: "the run has not stopped yet",
    },
    "report": _REPORT,
    **{name: {**_USE, **_OF_USE.get(name, {})} for name in USE_COMMANDS},
    "init": {
        ExitCode.OK: "the file was written",
        ExitCode.BAD_INPUT: "the file exists, or an option is not valid",
    },
    "schema": {ExitCode.OK: "the schema was printed"},
    "doctor": {
        ExitCode.OK: "no problem was found (there may be notes)",
        ExitCode.BAD_INPUT: "something required for runs on this machine is missing",
    },
    "data check": {
        ExitCode.OK: "no error was found (there may be warnings)",
        ExitCode.INTERNAL: "an unexpected error",
        ExitCode.BAD_INPUT: "the data contains an error, or an option is not valid",
        ExitCode.UNAVAILABLE: "the storage or the Hub cannot be reached",
    },
    "data convert": {
        ExitCode.OK: "the file was written",
        ExitCode.INTERNAL: "an unexpected error",
        ExitCode.BAD_INPUT: "the data contains an error, or an option is not valid",
        ExitCode.UNAVAILABLE: "the storage or the Hub cannot be reached",
    },
    "model tiny": _BASE_MODEL,
    "model prepare": {
        **_BASE_MODEL,
        ExitCode.UNAVAILABLE: "the package cannot be downloaded",
    },
    "model warm-start": _BASE_MODEL,
}

_KUBECTL: Mapping[str, Mapping[int, str]] = {
    "list": {**_CLUSTER, ExitCode.OK: "the list was printed"},
    "status": {**_CLUSTER, ExitCode.OK: "the state was printed"},
    "watch": {
        **_FOLLOWED,
        ExitCode.BAD_INPUT: f"the evolution failed because of bad input, {_NO_EVOLUTION}",
        ExitCode.UNAVAILABLE: f"{_NO_API_SERVER} at the start",
        ExitCode.INTERRUPTED: "Ctrl-C (the evolution continues)",
    },
    "logs": {
        ExitCode.OK: "kubectl printed the logs (any other kubectl exit code is passed through)",
        ExitCode.BAD_INPUT: f"{_NO_EVOLUTION}, or kubectl is not installed",
        ExitCode.UNAVAILABLE: _NO_API_SERVER,
    },
    "suspend": {**_CLUSTER, ExitCode.OK: "spec.suspend was set"},
    "resume": {**_CLUSTER, ExitCode.OK: "spec.suspend was cleared"},
    "report": {
        ExitCode.OK: "the report was written",
        ExitCode.BAD_INPUT: f"{_NO_EVOLUTION}, or the report could not be written",
        ExitCode.UNAVAILABLE: _NO_API_SERVER,
    },
    "serve": {
        ExitCode.OK: "the manifests were printed",
        ExitCode.BAD_INPUT: f"{_NO_EVOLUTION}, or it has no best model yet",
        ExitCode.UNAVAILABLE: _NO_API_SERVER,
    },
}


def _sorted(codes: Mapping[int, str]) -> dict[int, str]:
    """Return the exit codes of a command in order, with that of Ctrl-C, which all have."""
    return dict(sorted({ExitCode.INTERRUPTED: _CTRL_C, **codes}.items()))


#: The meaning of each exit code, by command.
EXIT_CODES: Mapping[str, Mapping[int, str]] = {
    **{f"selfemo {name}": _sorted(codes) for name, codes in _SELFEMO.items()},
    **{f"kubectl selfemo {name}": _sorted(codes) for name, codes in _KUBECTL.items()},
    "python -m selfemo_operator": {
        ExitCode.OK: "SIGTERM or SIGINT stopped the operator",
        ExitCode.BAD_INPUT: "an option is not valid, or the CRD does not match the operator",
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
    'Exit codes: 0 = all documents are valid; 2 = the file or an option is not valid; 130 = Ctrl-C.'
    """
    codes = "; ".join(f"{int(code)} = {meaning}" for code, meaning in EXIT_CODES[command].items())
    return f"Exit codes: {codes}."
