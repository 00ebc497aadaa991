"""SIGTERM: as an error that ends a program, and as a flag that training reads after each step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from selfemo_jobs.errors import Terminated

#: What the program reports that SIGTERM ended.
ENDED = "ended by SIGTERM; the same command continues from what is saved"


class RaisingSigterm:
    """Raises Terminated when SIGTERM arrives. The constructor installs the signal handler.

    The error may be lost: a library may turn it into one of its own, and Python ignores an error
    in a finalizer. So whoever handles an error looks at the flag first.
    """

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _signum: int, _frame: FrameType | None) -> None:
        self.received = True
        raise Terminated(ENDED)


class SigtermFlag:
    """Whether SIGTERM has arrived. The constructor installs the signal handler."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, _signum: int, _frame: FrameType | None) -> None:
        self.received = True


@contextmanager
def deferred_sigterm() -> Iterator[SigtermFlag]:
    """Return a context in which SIGTERM only sets a flag. The handler before is then restored."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield SigtermFlag()
    finally:
        signal.signal(signal.SIGTERM, before)
