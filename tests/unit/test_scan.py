"""`make scan` with advisories of the test: what it finds, and what it must not pass over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from tests.support.cluster import binaries
from tests.support.loopback_server import LoopbackServer

pytestmark = pytest.mark.slow  # it installs pip-audit

ROOT = Path(__file__).resolve().parents[2]
ADVISORY = {
    "id": "GHSA-0000-0000-0000",
    "summary": "A test.",
    "affected": [
        {
            "package": {"name": "urllib3", "ecosystem": "PyPI"},
            "ranges": [
                {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]},
            ],
        }
    ],
}


class Advisories(LoopbackServer):
    """A service with the interface of OSV. It knows one advisory."""

    status = 200
    """The status of all replies."""

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        matches = request["package"]["name"] == "urllib3"
        body = json.dumps({"vulns": [ADVISORY]} if matches else {}).encode()
        headers = {"Content-Type": "application/json"}
        self.send(handler, self.status, headers, body, with_body=with_body)


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that scans a copy of what the script reads."""
    uv = shutil.which("uv") or str(binaries.cache_folder() / "uv" / "bin" / "uv")
    if not Path(uv).is_file():
        pytest.skip("uv is not installed: make setup")
    checkout = tmp_path / "checkout"
    (checkout / "images").mkdir(parents=True)
    for name in ("pyproject.toml", "uv.lock", "images/scan", "images/accepted-advisories"):
        shutil.copy2(ROOT / name, checkout / name)

    def run(service: Advisories, *accepted: str) -> subprocess.CompletedProcess[str]:
        with (checkout / "images" / "accepted-advisories").open("a") as file:
            file.writelines(f"{line}\n" for line in accepted)
        options = ["--vulnerability-service", "osv", "--osv-url", f"http://{service.host}/v1/query"]
        return subprocess.run(
            [str(checkout / "images" / "scan"), *options, "--cache-dir", str(tmp_path / "cache")],
            env={**os.environ, "UV": uv},
            capture_output=True,
            text=True,
            check=False,
            timeout=500,
        )

    return run


def test_a_vulnerability_is_found_unless_it_is_accepted(scan: Callable[..., Any]) -> None:
    with Advisories() as service:
        result = scan(service)
        assert result.returncode == 1, result.stderr
        assert "GHSA-0000-0000-0000" in result.stdout
        for name in ("operator", "jobs", "jobs-cpu"):
            assert f"selfemo-{name}: " in result.stderr
        accepted = scan(service, "GHSA-0000-0000-0000 only for this test")
        assert accepted.returncode == 0, accepted.stdout + accepted.stderr


def test_a_package_that_cannot_be_looked_up_is_not_a_success(scan: Callable[..., Any]) -> None:
    with Advisories() as service:
        service.status = 503
        assert scan(service, "GHSA-0000-0000-0000 only for this test").returncode == 1
