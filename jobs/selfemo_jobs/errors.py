"""Errors on which a user or the operator acts.

Each has a message of one line: what was wrong, where, and what to do. The check of the input has a
line for each problem. Any other exception that a stage raises is a bug in selfemo and ends the
process with ``ExitCode.INTERNAL``.
"""

from __future__ import annotations

from typing import ClassVar

from selfemo_api.contract import ExitCode
from selfemo_api.stages import Stage

#: Characters of another library's error that a message repeats: some lines of a terminal.
_MOST = 500


def error_line(error: object) -> str:
    r"""Return the text of an error on one line, as part of a message of ours.

    A long text ends with an ellipsis. An error without a text has the name of its class.

    Examples
    --------
    >>> error_line(ValueError("no such\n  key."))
    'no such key'
    """
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"


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


class NoCredentials(BadInput):
    """There are no credentials for S3.

    A later stage than the check ends with :class:`Unavailable` instead: the check had some.
    """


class PromptTooLong(BadInput):
    """A prompt has too many tokens even without any context."""


class BadRows(BadInput):
    """Rows that an earlier stage of the generation wrote cannot be used."""


class DamagedFiles(BadInput):
    """A stored result of a stage is missing or damaged.

    Where an earlier stage of the same generation wrote it, the stage's program ends with a
    :class:`DamagedResult` instead.

    Parameters
    ----------
    problem
        What is wrong, and where.
    manifest_uri
        The URI of the manifest of the result.
    advice
        What a person can do about it.
    """

    def __init__(self, problem: str, manifest_uri: str, advice: str = "restore it") -> None:
        super().__init__(f"{problem}: {advice}")
        self.problem = problem
        self.manifest_uri = manifest_uri


class WrongRows(DamagedFiles):
    """A stored result is whole, but a later stage cannot use its rows.

    The stage that wrote it would answer with the same rows. So the advice stays in the message.
    """


class DamagedResult(StageError):
    """The result of an earlier stage of the same generation is damaged: that stage must run again.

    Parameters
    ----------
    message
        What is wrong, where, and what happens.
    stage
        The stage that wrote the result.
    """

    exit_code = ExitCode.DAMAGED_RESULT
    kind = "DamagedResult"

    def __init__(self, message: str, stage: Stage) -> None:
        super().__init__(message)
        self.stage = stage


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
