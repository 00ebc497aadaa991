"""Operators as processes, started from one launcher and restarted as a kubelet does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.operator.process import free_port

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
_RESTART_SECONDS = 0.3


class Launcher:
    """The process that forks operators.

    Parameters
    ----------
    defect
        The name of a defect to put back, or None.
    """

    def __init__(self, defect: str | None = None) -> None:
        command = [sys.executable, "-m", "tests.campaign.launcher"]
        command += ["--defect", defect] if defect else []
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._lock = threading.Lock()
        self._listeners: dict[str, Callable[[Json], None]] = {}
        self._ready, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        if not self._ready.wait(120):
            raise RuntimeError("the launcher of operators does not answer")
        if self._ended.wait(0.1):
            raise RuntimeError("the launcher of operators has ended: see the error above")

    def start(self, identity: str, command: Json, listener: Callable[[Json], None]) -> None:
        """Start an operator; the listener is called with its pid, and with its exit code."""
        with self._lock:
            self._listeners[identity] = listener
            line = json.dumps({"do": "start", "id": identity, **command}) + "\n"
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def stop(self) -> None:
        """End the launcher, and with it all operators."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            document = json.loads(line)
            if "id" not in document:
                self._ready.set()
                continue
            with self._lock:
                listener = self._listeners.get(document["id"])
            if listener is not None:
                listener(document)
        self._ended.set()
        self._ready.set()


class Operator:
    """One operator, which is started again whenever it ends.

    Parameters
    ----------
    launcher
        The launcher that forks it.
    kubeconfig
        The kubeconfig of the proxy.
    log
        The file of its log.
    options
        Its options.
    identity
        The name under which it holds the Lease.
    environment
        Variables that count from the start of a process: it is then not a fork.
    on_end
        A function that is called after each end.
    """

    def __init__(
        self,
        launcher: Launcher,
        kubeconfig: Path,
        log: Path,
        options: tuple[str, ...],
        identity: str = "operator-0",
        environment: dict[str, str] | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._launcher = launcher
        self._kubeconfig = kubeconfig
        self.log = log
        self._options = options
        self.identity = identity
        self._environment = environment or {}
        self._on_end = on_end
        self._changed = threading.Condition()
        self._pid: int | None = None
        self._wanted = False
        self._killed = False
        self._launching = False
        self._starts = 0
        self.ends: list[tuple[int, str]] = []
        """The exit codes of ends that the campaign did not cause, with the end of the log."""
        self.health_port, self.metrics_port = free_port(), free_port()

    @property
    def pid(self) -> int | None:
        """The pid of the running process, or None."""
        return self._pid

    def start(self) -> None:
        """Start it unless it runs, and again after each end."""
        with self._changed:
            self._wanted = True
        self._launch_if_wanted()

    def kill(self, restart: bool = True) -> None:
        """Kill it with SIGKILL; by default it starts again at once."""
        with self._changed:
            self._wanted = restart
            pid = self._pid
            self._killed = pid is not None
        if pid is not None:
            _signal(pid, signal.SIGKILL)

    def stop(self) -> int | None:
        """End it with SIGTERM; return its exit code, or None if it had to be killed."""
        with self._changed:
            self._wanted = False
            if self._pid is None:
                return 0
            _signal(self._pid, signal.SIGTERM)
            before = len(self.ends)
            self._killed = False
            if not self._changed.wait_for(lambda: self._pid is None, 30):
                if self._pid is not None:
                    _signal(self._pid, signal.SIGKILL)
                return None
            return self.ends.pop()[0] if len(self.ends) > before else 0

    def pause(self, seconds: float) -> None:
        """Stop its clock for some seconds: SIGSTOP, then SIGCONT."""
        pid = self._pid
        if pid is None:
            return
        _signal(pid, signal.SIGSTOP)
        time.sleep(seconds)
        _signal(pid, signal.SIGCONT)

    def wait_ready(self, seconds: float = 20.0) -> bool:
        """Wait until its probe answers; return whether it does."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.probe("readyz") == 200:
                return True
            time.sleep(0.05)
        return False

    def probe(self, name: str) -> int:
        """Return the status of a probe; 0 without a response."""
        try:
            url = f"http://127.0.0.1:{self.health_port}/{name}"
            with urlopen(url, timeout=5) as response:
                return int(response.status)
        except URLError as error:
            return int(getattr(error, "code", 0))
        except OSError:
            return 0

    def series(self) -> set[tuple[str, str]]:
        """Return the namespace and name of each evolution that has a metric series."""
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            text = response.read().decode()
        return {
            (sample.labels["namespace"], sample.labels["name"])
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("selfemo_evolution_") and "name" in sample.labels
        }

    def memory(self) -> int:
        """Return the resident memory in KiB, or 0."""
        try:
            lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)

    def _launch(self) -> None:
        ports = ("--health-port", str(self.health_port), "--metrics-port", str(self.metrics_port))
        environment = {"KUBECONFIG": str(self._kubeconfig), "POD_NAME": self.identity}
        command = {
            "argv": ["--jobs-image", "selfemo/jobs:test", *ports, *self._options],
            "env": {**environment, **self._environment},
            "log": str(self.log),
            "exec": bool(self._environment),
        }
        self._starts += 1
        self._launcher.start(f"{self.log}#{self._starts}", command, self._notice)

    def _notice(self, document: Json) -> None:
        with self._changed:
            if "pid" in document:
                self._pid, self._launching = document["pid"], False
                if not self._wanted:
                    self._killed = True
                    _signal(document["pid"], signal.SIGKILL)
                self._changed.notify_all()
                return
            if not self._killed:
                self.ends.append((document["code"], self.tail()))
            self._pid, self._killed = None, False
            again = self._wanted
            self._changed.notify_all()
        self._on_end()
        if again:
            timer = threading.Timer(_RESTART_SECONDS, self._launch_if_wanted)
            timer.daemon = True
            timer.start()

    def _launch_if_wanted(self) -> None:
        with self._changed:
            if not self._wanted or self._pid is not None or self._launching:
                return
            self._launching = True
        self._launch()

    def tail(self, characters: int = 1500) -> str:
        """Return the end of the log."""
        return self.text()[-characters:]

    def text(self) -> str:
        """Return the log."""
        return self.log.read_text(errors="replace") if self.log.is_file() else ""


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
