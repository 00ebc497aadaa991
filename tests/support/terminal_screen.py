"""Runs a command in a pseudo-terminal, and reads what the screen shows."""

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
    """A context manager that runs a command in its own terminal, and kills it at the end.

    Parameters
    ----------
    command
        The program and its arguments.
    environment
        Variables that are added to the environment of this process.
    rows, columns
        The size of the terminal, in characters.

    Attributes
    ----------
    raw
        The bytes that the command has written so far.
    process
        The command's process.
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
        self._controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        # These two would win over the terminal's own size.
        inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            list(command),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**inherited, "TERM": "xterm-256color", **(environment or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C
        )
        os.close(terminal)

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
        os.close(self._controller)

    @property
    def lines(self) -> list[str]:
        """The lines on the screen that are not blank."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        """The lines on the screen as one text."""
        return "\n".join(self.lines)

    @property
    def cursor_hidden(self) -> bool:
        """Whether the cursor is hidden."""
        return bool(self._screen.cursor.hidden)

    def type(self, keys: bytes) -> None:
        """Send keys to the command."""
        os.write(self._controller, keys)

    def wait(self, expected: str | Callable[[str], bool], seconds: float = 60) -> None:
        """Wait until the screen shows a text.

        Parameters
        ----------
        expected
            A part of the text, or a function that returns whether the text is there.
        seconds
            The longest time to wait, in seconds.
        """
        deadline = time.monotonic() + seconds
        check = expected if callable(expected) else lambda text: expected in text
        while not check(self.text):
            assert time.monotonic() < deadline, (
                f"waited for {expected!r}; the screen shows:\n{self.text}"
            )
            if not self._read(0.1) and self.process.poll() is not None:
                while self._read(0):  # it wrote and ended after the read above
                    pass
                assert check(self.text), f"ended without {expected!r}:\n{self.text}"

    def end(self, seconds: float = 60) -> int:
        """Wait until the command ends, and return its exit code."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None or self._read(0):
            assert time.monotonic() < deadline, f"the command still runs:\n{self.text}"
            self._read(0.1)
        return self.process.returncode

    def interrupt(self, seconds: float = 60) -> int:
        """Press Ctrl-C, and again every few seconds until the command ends; return its exit code.

        Python's line editor misses a signal that arrives between its last look at signals and its
        wait for the next key. A test may hit this moment right after an echo.
        """
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the command still runs:\n{self.text}"
            self.type(b"\x03")
            pause = time.monotonic() + 5
            while self.process.poll() is None and time.monotonic() < pause:
                self._read(0.1)
        return self.end()

    def _read(self, seconds: float) -> bool:
        """Read new output for at most some seconds, and return whether there was any."""
        ready, _, _ = select.select([self._controller], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._controller, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)
