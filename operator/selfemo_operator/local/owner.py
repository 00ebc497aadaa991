"""Which process runs an evolution on this machine. The lock file of its state folder records it.

A process id alone is not enough, because the system uses it again. With the time at which the
process started, counted since the machine was booted, it names one process only.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

#: The fields of /proc/<pid>/stat after the name of the program: the time of the start is the 22nd.
_START_FIELD = 22 - 3
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Owner:
    """A process that holds, or held, the lock of a state folder."""

    pid: int
    """The process id."""
    start: int
    """The time at which the process started, in clock ticks since the machine was booted."""
    boot: str
    """The id of the machine's boot."""
    host: str
    """The name of the machine."""
    program: str
    """The program, e.g. ``selfemo run``."""

    @property
    def is_here(self) -> bool:
        """Whether the process was started on this machine, since it was booted."""
        return self.boot == _boot_id()

    def terminate(self) -> bool:
        """Send SIGTERM to the process; return False if it has ended.

        The signal goes through a file descriptor of the process. So it never reaches another
        process that has received the same id.
        """
        try:
            process = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.is_here or _start_of(self.pid) != self.start:
                return False
            signal.pidfd_send_signal(process, signal.SIGTERM)
        except ProcessLookupError:
            return False
        finally:
            os.close(process)
        return True


def this_process(program: str) -> Owner:
    """Return the present process.

    Parameters
    ----------
    program
        The program, e.g. ``selfemo run``.
    """
    pid = os.getpid()
    return Owner(pid, _start_of(pid) or 0, _boot_id(), socket.gethostname(), program)


def write_owner(lock: int, owner: Owner) -> None:
    """Record the process that holds a lock.

    Parameters
    ----------
    lock
        The descriptor of the lock file.
    owner
        The process.
    """
    content = json.dumps(asdict(owner)).encode()
    os.pwrite(lock, content, 0)
    os.ftruncate(lock, len(content))


def read_owner(folder: Path) -> Owner | None:
    """Return the process that holds, or held last, the lock of a state folder.

    Parameters
    ----------
    folder
        The folder ``<state>/<namespace>/<name>``.

    Returns
    -------
    Owner or None
        None if no process is recorded, for example by an earlier version.
    """
    try:
        content = json.loads((folder / "lock").read_bytes())
        return Owner(**content) if isinstance(content, dict) else None
    except (OSError, ValueError, TypeError):
        return None


def _start_of(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # the name of the program is in parentheses, and may contain blanks and parentheses
    return int(text.rpartition(")")[2].split()[_START_FIELD])


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
