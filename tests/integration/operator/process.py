"""The operator as a process of its own, as in a pod."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass
class OperatorProcess:
    """One operator."""

    kubeconfig: Path
    log: Path
    options: tuple[str, ...] = ()
    identity: str = "operator-0"
    process: subprocess.Popen[bytes] | None = None
    health_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        while self.metrics_port == self.health_port:  # the system may return a port twice
            self.metrics_port = free_port()

    def start(self) -> None:
        command = [sys.executable, "-m", "selfemo_operator", "--jobs-image", "selfemo/jobs:test"]
        ports = ["--health-port", str(self.health_port), "--metrics-port", str(self.metrics_port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *ports, *self.options],
                env={
                    **os.environ,
                    "KUBECONFIG": str(self.kubeconfig),
                    "POD_NAME": self.identity,
                    **self.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        """End the process with SIGTERM, as a kubelet does; return the exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def get(self, path: str) -> int:
        """Return the HTTP status of a probe; 0 without a response."""
        try:
            with urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as response:
                return int(response.status)
        except HTTPError as error:
            return error.code
        except (URLError, OSError):
            return 0

    def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Return the value of each series by its name and the values of its own labels."""
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            text = response.read().decode()
        values: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {k: v for k, v in sample.labels.items() if k not in ("namespace", "name")}
                values.setdefault(sample.name, {})[tuple(labels.values())] = sample.value
        return values

    def wait_ready(self, seconds: float = 180.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.get("/readyz") == 200:
                return
            assert self.process is not None
            assert self.process.poll() is None, self.text()[-3000:]
            time.sleep(0.1)
        raise AssertionError(f"not ready: {self.text()[-3000:]}")

    def text(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""
