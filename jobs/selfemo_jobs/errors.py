"""Errors that a person, or the operator, acts on.

Each carries one line that says what was wrong, where, and what to do. Anything else that escapes a
stage is a defect of ours and exits with ``ExitCode.INTERNAL``.
"""

from __future__ import annotations

from typing import ClassVar

from selfemo_api.contract import ExitCode


class StageError(Exception):
    """Base of the errors a stage may end with."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    kind: ClassVar[str] = "Internal"


class BadInput(StageError):
    """Something a person must mend: a file, a row, a field, a right. Never retried."""

    exit_code = ExitCode.BAD_INPUT
    kind = "BadInput"


class Unavailable(StageError):
    """The outside was away for longer than the retries last. The same command goes on from here."""

    exit_code = ExitCode.UNAVAILABLE
    kind = "Unavailable"


class Terminated(StageError):
    """SIGTERM came: the work so far is saved."""

    exit_code = ExitCode.TERMINATED
    kind = "Unavailable"
