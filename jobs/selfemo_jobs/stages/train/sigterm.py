"""SIGTERM as a flag that training reads between two steps."""

from __future__ import annotations

import signal
from types import FrameType


class SigtermFlag:
    """Whether SIGTERM has arrived. Installs the signal handler."""

    def __init__(self) -> None:
        self.received = False
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, _signum: int, _frame: FrameType | None) -> None:
        self.received = True
