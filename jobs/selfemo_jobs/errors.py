"""Errors on which a user or the operator acts.

Each has a message of one line: what was wrong, where, and what to do. The check of the input has a
line for each problem. Any other exception that a stage raises is a bug in selfemo and ends the
process with ``ExitCode.INTERNAL``.
"""

from __future__ import annotations

from typing import ClassVar

from selfemo_api.contract import ExitCode


class StageError(Exception):
    """The base class of the errors with which a stage may end."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    kind: ClassVar[str] = "Internal"


class BadInput(StageError):
    """The input requires a user fix: a file, a row, a field, a permission. Never retried."""

    exit_code = ExitCode.BAD_INPUT
    kind = "BadInput"


class InputProblems(BadInput):
    """All problems of an input. The message has a line for each."""


class Unavailable(StageError):
    """A service (storage, hub, network) stayed unavailable through all retries.

    The same command continues from what is saved.
    """

    exit_code = ExitCode.UNAVAILABLE
    kind = "Unavailable"


class Terminated(BaseException):
    """The process received SIGTERM. The work that was done is saved.

    The handler of the signal raises it anywhere, so also while a library works. Libraries that
    catch every ``Exception`` must not take it for an error of theirs.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.TERMINATED
    kind: ClassVar[str] = "Unavailable"
