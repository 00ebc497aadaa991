"""A command in a real pseudo-terminal, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import pyte


class Screen:
    """A command with a terminal of its own, as a context manager; it is ended with it.

    Attributes
    ----------
    raw
        Everything that was written so far.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        rows: int = 50,
        columns: int = 120,
    ) -> None:
        self.raw = b""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            list(command),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C
        )
        os.close(theirs)

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._mine)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        """The same in one."""
        return "\n".join(self.lines)

    @property
    def cursor_hidden(self) -> bool:
        """Whether the cursor is not to be seen."""
        return bool(self._screen.cursor.hidden)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._mine, keys)

    def wait(self, shown: str | Callable[[str], bool], seconds: float = 60) -> None:
        """Wait until something is on the screen."""
        deadline = time.monotonic() + seconds
        check = shown if callable(shown) else lambda text: shown in text
        while not check(self.text):
            assert time.monotonic() < deadline, f"waited for {shown!r}; there is:\n{self.text}"
            if not self._read(0.1) and self.process.poll() is not None:
                assert check(self.text), f"ended without {shown!r}:\n{self.text}"

    def end(self, seconds: float = 60) -> int:
        """Wait for the end, and return the exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None or self._read(0):
            assert time.monotonic() < deadline, f"it goes on:\n{self.text}"
            self._read(0.1)
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._mine], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._mine, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
