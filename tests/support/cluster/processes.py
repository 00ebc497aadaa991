"""Processes that outlive their parent. Their pids are recorded in files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster.errors import ClusterError
from tests.support.cluster.locks import replace_text

#: Seconds to wait for a program. It takes seconds, and minutes beside a lot of other work.
_PATIENCE = 300.0


@dataclass(frozen=True)
class Component:
    """One program of the cluster.

    Attributes
    ----------
    ready
        A function that returns whether the program is ready.
    files
        The files that the program reads at its start.
    started
        A function that is called with the pid directly after the start.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    files: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    started: Callable[[int], None] = lambda _: None


def wait_until(check: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """Wait until a check is true; raise `ClusterError` after a time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what} took more than {seconds:.0f} s")
        time.sleep(0.05)


class Processes:
    """The processes of one cluster: pids in `<folder>/pids`, output in `<folder>/logs`."""

    def __init__(self, folder: Path) -> None:
        self._pids = folder / "pids"
        self._logs = folder / "logs"

    def log(self, name: str) -> Path:
        """Return the path of a process's output."""
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """Return the names of all processes that were started and not stopped."""
        return sorted(path.stem for path in self._pids.glob("*.json"))

    def pid(self, name: str) -> int | None:
        """Return the pid of a process if it is still running, otherwise None."""
        try:
            recorded = self._recorded(name)
        except FileNotFoundError:
            return None
        pid = int(recorded["pid"])
        # the pid may belong to another process now, which has another start time
        return pid if _birth(pid) == recorded["birth"] else None

    def start(self, component: Component) -> None:
        """Start a component unless it runs; restart it if its command or its files have changed."""
        digest = _digest(component)
        if self.pid(component.name) is not None:
            if self._recorded(component.name)["digest"] == digest:
                self.signal(component.name, signal.SIGCONT)  # a test may have left it paused
                return
            self.stop([component.name])
        self._pids.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            component.command[0],
            component.command,
            {**os.environ, **component.environment},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log(component.name)), flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # it must not end with the terminal or the test run
        )
        record = {"pid": pid, "birth": _birth(pid), "digest": digest}
        replace_text(self._pids / f"{component.name}.json", json.dumps(record))
        component.started(pid)

    def wait(self, component: Component, seconds: float = _PATIENCE) -> None:
        """Wait until a component is ready; an error contains the end of its output."""

        def check() -> bool:
            if self.pid(component.name) is None:
                raise ClusterError(f"{component.name} ended:\n{self.tail(component.name)}")
            return component.ready()

        try:
            wait_until(check, f"{component.name} to become ready", seconds)
        except ClusterError as error:
            if "ended" in str(error):
                raise
            raise ClusterError(f"{error}:\n{self.tail(component.name)}") from error

    def tail(self, name: str) -> str:
        """Return the end of a process's output."""
        with contextlib.suppress(FileNotFoundError):
            return self.log(name).read_text(errors="replace")[-2000:]
        return ""

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process, if it is running. A stopped one has stopped on return."""
        pid = self.pid(name)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if number is signal.SIGSTOP:  # threads that run on other processors stop a little later
            wait_until(lambda: _has_stopped(pid), f"{name} to stop")

    def stop(self, names: Iterable[str], *, patience: float = 5) -> None:
        """End processes with SIGTERM, kill those that do not end, and remove their records."""
        names = list(names)
        for name in names:
            self.signal(name, signal.SIGTERM)
            self.signal(name, signal.SIGCONT)
        deadline = time.monotonic() + patience
        while any(self.pid(name) for name in names) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill(names)

    def kill(self, names: Iterable[str]) -> None:
        """Kill processes at once, and remove their records."""
        for name in names:
            self.signal(name, signal.SIGKILL)
            wait_until(lambda name=name: self.pid(name) is None, f"{name} to end")  # type: ignore[misc]
            (self._pids / f"{name}.json").unlink(missing_ok=True)

    def _recorded(self, name: str) -> dict[str, Any]:
        recorded: dict[str, Any] = json.loads((self._pids / f"{name}.json").read_text())
        return recorded


def _digest(component: Component) -> str:
    """Return a digest of the command, the environment and the files."""
    parts: list[bytes] = [repr((component.command, dict(component.environment))).encode()]
    parts += [path.read_bytes() for path in component.files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _has_stopped(pid: int) -> bool:
    """Return whether all threads of a process are stopped, or it has ended."""
    try:
        stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return False  # a thread has just ended
    return all(stat.rpartition(")")[2].split()[0] in {"T", "Z", "X"} for stat in stats)


def _birth(pid: int) -> str | None:
    """Return the start time of a process in ticks since boot, or None if it has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a child that has ended is a zombie until it is waited for
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else fields[18]
