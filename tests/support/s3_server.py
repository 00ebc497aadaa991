"""A real S3 server for tests: versitygw with a temporary folder, on the loopback interface."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from selfemo_api.spec import StorageSpec
from tests.support.cluster import s3, settings
from tests.support.cluster.fixtures import program_or_skip

BUCKET = settings.BUCKET


class S3Server:
    """A server with one bucket, which can be stopped, started again and paused."""

    bucket = BUCKET
    access_key = "selfemo-test"

    def __init__(self, folder: Path) -> None:
        self._program = program_or_skip("versitygw", "SELFEMO_VERSITYGW")
        self._folder = folder
        self.secret_key = secrets.token_hex(16)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment for boto3, without the settings of this machine."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def storage(self, prefix: str = "", **changes: object) -> StorageSpec:
        """Return a StorageSpec for a prefix of the bucket; `changes` are camelCase fields."""
        uri = f"s3://{self.bucket}/{prefix}".rstrip("/")
        fields = {"uri": uri, "endpoint": self.endpoint, "pathStyle": True, **changes}
        return StorageSpec.model_validate(fields)

    def file(self, uri: str) -> Path:
        """Return the file in which the server keeps an object."""
        return self._folder / "root" / uri.removeprefix("s3://")

    def start(self) -> None:
        """Start the server (again), and wait until it responds."""
        command = s3.arguments(self._folder, f"127.0.0.1:{self.port}")
        keys = s3.environment(self.access_key, self.secret_key)
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), *command],
                env={**os.environ, **keys},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(URLError, OSError):
                if urlopen(f"{self.endpoint}/healthz", timeout=1).status == 200:
                    return
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError((self._folder / "server.log").read_text())

    def stop(self) -> None:
        """Kill the server; its objects stay."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Let the server hang: it accepts connections and never responds."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the server after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
