"""The errors of the Python API: one message, which states what was wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selfemo_api.contract import ExitCode
from selfemo_api.schema.validation import InvalidEvolution
from selfemo_api.status import EvolutionStatus
from selfemo_api.text.extras import install_hint, missing_extras
from selfemo_jobs.errors import BadInput, StageError, Unavailable
from selfemo_operator.local.state import RunnerError


class MissingExtra(ImportError):
    """A library is not installed. The message has the extra that installs it."""


class RunFailed(Exception):
    """A run ended without success: a stage failed, or the model collapsed.

    Parameters
    ----------
    message
        The reason, as the condition `Succeeded` of the status has it.
    status
        The last status of the run.
    """

    def __init__(self, message: str, status: EvolutionStatus) -> None:
        super().__init__(message)
        self.status = status


def require(what: str, *extras: str) -> None:
    """Check that extras are installed, before their libraries are imported.

    Parameters
    ----------
    what
        The name that needs them, for the message.
    extras
        The extras.

    Raises
    ------
    MissingExtra
        If one is not installed.
    """
    missing = missing_extras(extras)
    if missing:
        names = " and ".join(f'"{name}"' for name in missing)
        raise MissingExtra(f"{what} requires the extra {names}: {install_hint(*missing)}")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Return a context that turns errors of the command into those of this package.

    Raises
    ------
    BadInput
        If a file or an argument requires a fix.
    Unavailable
        If a service or another run is the cause.
    """
    try:
        yield
    except InvalidEvolution as error:
        raise BadInput(str(error)) from None
    except RunnerError as error:
        kinds: dict[int, type[StageError]] = {
            ExitCode.BAD_INPUT: BadInput,
            ExitCode.UNAVAILABLE: Unavailable,
        }
        raise kinds.get(error.exit_code, StageError)(str(error)) from None
