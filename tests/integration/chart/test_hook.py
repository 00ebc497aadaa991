"""`helm test`: what it shows the API server, how its checks end, and a whole run of its chain."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from kubernetes import client

from selfemo_api.schema.validation import check
from tests.integration.chart.helm import CHART, VALUES, Helm, find
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.chart

Json = dict[str, Any]
RESOURCES = "/apis/selfemo.dev/v1alpha1"
COLLECTION = f"{RESOURCES}/namespaces/research/emotionevolutions"


def rendered(helm: Helm, values: Path | Json | None = None) -> Json:
    """Return the test's evolution."""
    (text,) = (
        o["data"]["evolution.yaml"]
        for o in helm.template(values)
        if o["kind"] == "ConfigMap" and o["metadata"]["name"].endswith("-test")
    )
    document: Json = yaml.safe_load(text)
    return document


@pytest.mark.parametrize("name", ["default", "evolution", "extras", "scoped"])
def test_its_evolution_is_valid(helm4: Helm, name: str) -> None:
    assert check(rendered(helm4, VALUES / f"{name}.yaml")) == []


def test_a_long_release_name_fits(helm4: Helm) -> None:
    assert check(rendered(helm4, {"fullnameOverride": "n" * 60})) == []


class Cluster:
    """As much of an API server as the checks ask for; it judges evolutions as the CRD does."""

    def __init__(self) -> None:
        self.stored: Json | None = None
        self.ready = 1
        self.served = True
        self.judges = True
        self.end = ("True", "MaxGenerationsReached")

    def get(self, path: str) -> tuple[int, Json]:
        if path == "/apis/apps/v1/namespaces/selfemo-system/deployments/selfemo":
            template = {"metadata": {}, "spec": {"containers": [{"name": "c"}]}}
            spec = {"replicas": 2, "selector": {}, "template": template}
            return 200, {"spec": spec, "status": {"readyReplicas": self.ready}}
        if path == RESOURCES and self.served:
            resource: Json = {"name": "emotionevolutions", "kind": "EmotionEvolution"}
            resource |= {"namespaced": True, "singularName": "", "verbs": []}
            return 200, {"groupVersion": "selfemo.dev/v1alpha1", "resources": [resource]}
        if path.startswith(COLLECTION) and self.stored:
            status, reason = self.end
            condition = {"type": "Succeeded", "status": status, "reason": reason, "message": "m"}
            return 200, {**self.stored, "status": {"generation": 1, "conditions": [condition]}}
        return 404, {}

    def post(self, path: str, body: Json) -> tuple[int, Json]:
        bare, _, query = path.partition("?")
        assert bare == COLLECTION
        if self.judges and (found := check(body)):
            return 422, {"message": str(found[0])}
        if "dryRun=All" not in query:
            self.stored = body
        return 201, body

    def delete(self, path: str) -> tuple[int, Json]:
        gone, self.stored = self.stored, None
        return (200, gone) if gone else (404, {})


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """The cluster, served; the Kubernetes client knows where it is."""
    state = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, call: Callable[..., tuple[int, Json]], *arguments: Any) -> None:
            code, body = call(self.path, *arguments)
            text = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.answer(state.get)

        def do_DELETE(self) -> None:
            self.answer(state.delete)

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            self.answer(state.post, json.loads(self.rfile.read(size)))

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    before = client.Configuration._default
    client.Configuration.set_default(
        client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    )
    yield state
    client.Configuration.set_default(before)
    server.shutdown()


@pytest.fixture
def run_checks(
    helm4: Helm, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """The checks as the pod runs them, with its files and environment."""
    objects = helm4.template(VALUES / "evolution.yaml")
    for name, text in find(objects, "ConfigMap", "selfemo-test")["data"].items():
        (tmp_path / name).write_text(text)
    for variable in find(objects, "Pod", "selfemo-test")["spec"]["containers"][0]["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    module = load(tmp_path / "check.py")
    monkeypatch.setattr(module.config, "load_incluster_config", lambda: None)
    monkeypatch.setattr(module, "READY_SECONDS", 0.5)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    run: Callable[[], None] = module.main
    return run


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_checks_pass_and_nothing_is_left(
    run_checks: Callable[[], None], cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.stored = {"left": "by a failed test"}
    run_checks()
    said = capsys.readouterr().out
    assert "operator: ready replicas: 1" in said
    assert "an invalid evolution: rejected" in said
    assert "a tiny evolution: MaxGenerationsReached" in said
    assert cluster.stored is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ready": 0}, "no ready replica"),
        ({"served": False}, "is the CRD installed"),
        ({"judges": False}, "was admitted"),
        ({"end": ("False", "BadInput")}, "FAILED: BadInput"),
    ],
)
def test_what_is_wrong_is_said(
    run_checks: Callable[[], None], cluster: Cluster, change: Json, message: str
) -> None:
    for name, value in change.items():
        setattr(cluster, name, value)
    with pytest.raises(SystemExit, match=message):
        run_checks()


@pytest.mark.slow
def test_the_tiny_evolution_runs(helm4: Helm, s3: S3Server, tmp_path: Path) -> None:
    """The pod's first container and the evolution, on this machine in place of the cluster."""
    storage = s3.storage("chart").to_json()
    objects = helm4.template({"test": {"storage": storage}})
    (first,) = find(objects, "Pod", "selfemo-test")["spec"]["initContainers"]
    told = {v["name"]: v["value"] for v in first["env"]}
    script = CHART / "files" / "test" / "prepare.py"
    environment = {**os.environ, **told}
    subprocess.run([sys.executable, str(script)], env=environment, check=True, timeout=300)
    file = tmp_path / "evolution.yaml"
    file.write_text(find(objects, "ConfigMap", "selfemo-test")["data"]["evolution.yaml"])
    program = str(Path(sys.executable).parent / "selfemo")
    command = [program, "run", str(file), "--state", str(tmp_path / "state"), "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["phase"] == "Succeeded"
    assert "Train" in done.stderr
    trained = [line for line in done.stderr.splitlines() if "Train " in line and "rows in" in line]
    assert trained and " 0 rows" not in trained[0]
