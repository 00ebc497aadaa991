"""Processes that outlive the one that starts them, known by their recorded pids."""

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


@dataclass(frozen=True)
class Component:
    """One program of the cluster.

    Attributes
    ----------
    ready
        Asked until it returns True.
    files
        What it reads once, when it starts.
    started
        Called with its pid at once.
    """

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool]
    files: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    started: Callable[[int], None] = lambda _: None


def wait_until(check: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Ask until it is so; raise `ClusterError` when that takes too long."""
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
        """Return the file with a process's output."""
        return self._logs / f"{name}.log"

    def names(self) -> list[str]:
        """Return the names of all that were started and not stopped."""
        return sorted(path.stem for path in self._pids.glob("*.json"))

    def pid(self, name: str) -> int | None:
        """Return the pid where the recorded process still lives."""
        try:
            recorded = self._recorded(name)
        except FileNotFoundError:
            return None
        pid = int(recorded["pid"])
        # a pid may be another process's by now: the time of its start tells
        return pid if _birth(pid) == recorded["birth"] else None

    def start(self, component: Component) -> None:
        """Start it unless it runs; one that runs with another command or files starts anew."""
        made_of = _digest(component)
        if self.pid(component.name) is not None:
            if self._recorded(component.name)["digest"] == made_of:
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
        record = {"pid": pid, "birth": _birth(pid), "digest": made_of}
        replace_text(self._pids / f"{component.name}.json", json.dumps(record))
        component.started(pid)

    def wait(self, component: Component, seconds: float = 60) -> None:
        """Wait until it is ready; say what it wrote last where it ends or never is."""

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
        """Return the last of a process's output."""
        with contextlib.suppress(FileNotFoundError):
            return self.log(name).read_text(errors="replace")[-2000:]
        return ""

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, names: Iterable[str], *, patience: float = 5) -> None:
        """End them: ask all, wait, kill what is left; then forget them."""
        names = list(names)
        for name in names:
            self.signal(name, signal.SIGTERM)
            self.signal(name, signal.SIGCONT)
        deadline = time.monotonic() + patience
        while any(self.pid(name) for name in names) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill(names)

    def kill(self, names: Iterable[str]) -> None:
        """Kill them at once, as a crash would, and forget them."""
        for name in names:
            self.signal(name, signal.SIGKILL)
            wait_until(lambda name=name: self.pid(name) is None, f"{name} to end")  # type: ignore[misc]
            (self._pids / f"{name}.json").unlink(missing_ok=True)

    def _recorded(self, name: str) -> dict[str, Any]:
        recorded: dict[str, Any] = json.loads((self._pids / f"{name}.json").read_text())
        return recorded


def _digest(component: Component) -> str:
    """Return what changes when the command, the environment or a file changes."""
    parts: list[bytes] = [repr((component.command, dict(component.environment))).encode()]
    parts += [path.read_bytes() for path in component.files]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _birth(pid: int) -> str | None:
    """Return the time of a process's start in ticks since boot; None where it is dead."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # one of our own that died is a zombie until it is asked for
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else fields[18]
