"""`helm test`: its evolution, its checks with a fake API server, and a run of its containers."""

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

from selfemo_api.recipes import with_overrides
from selfemo_api.schema.validation import check
from tests.integration.chart.helm import CHART, VALUES, Helm, find
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.chart

Json = dict[str, Any]
RESOURCES = "/apis/selfemo.dev/v1alpha1"
COLLECTION = f"{RESOURCES}/namespaces/research/emotionevolutions"


def rendered_evolution(helm: Helm, values: Path | Json | None = None) -> Json:
    """Return the rendered evolution of the test."""
    (text,) = (
        o["data"]["evolution.yaml"]
        for o in helm.template(values)
        if o["kind"] == "ConfigMap" and o["metadata"]["name"].endswith("-test")
    )
    document: Json = yaml.safe_load(text)
    return document


@pytest.mark.parametrize("name", ["default", "evolution", "extras", "scoped"])
def test_the_tests_evolution_is_valid(helm4: Helm, name: str) -> None:
    assert check(rendered_evolution(helm4, VALUES / f"{name}.yaml")) == []


def test_a_long_release_name_fits(helm4: Helm) -> None:
    assert check(rendered_evolution(helm4, {"fullnameOverride": "n" * 60})) == []


class Cluster:
    """A fake API server for the checks. It validates evolutions as the CRD does."""

    def __init__(self) -> None:
        self.stored: Json | None = None
        self.ready = 1
        self.served = True
        self.validates = True
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
        if self.validates and (problems := check(body)):
            return 422, {"message": str(problems[0])}
        if "dryRun=All" not in query:
            self.stored = body
        return 201, body

    def delete(self, path: str) -> tuple[int, Json]:
        deleted, self.stored = self.stored, None
        return (200, deleted) if deleted else (404, {})


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """The fake API server; the Kubernetes client is configured for it."""
    state = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def respond(self, call: Callable[..., tuple[int, Json]], *arguments: Any) -> None:
            code, body = call(self.path, *arguments)
            text = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self.respond(state.get)

        def do_DELETE(self) -> None:
            self.respond(state.delete)

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            self.respond(state.post, json.loads(self.rfile.read(size)))

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
    """A function that runs the checks as the pod does, with its files and environment."""
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


def test_all_checks_pass_and_the_evolution_is_deleted(
    run_checks: Callable[[], None], cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.stored = {"left": "by a failed test"}
    run_checks()
    output = capsys.readouterr().out
    assert "operator: ready replicas: 1" in output
    assert "an invalid evolution: rejected" in output
    assert "a tiny evolution: MaxGenerationsReached" in output
    assert cluster.stored is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ready": 0}, "no ready replica"),
        ({"served": False}, "is the CRD installed"),
        ({"validates": False}, "was admitted"),
        ({"end": ("False", "BadInput")}, "FAILED: BadInput"),
    ],
)
def test_a_failed_check_is_reported(
    run_checks: Callable[[], None], cluster: Cluster, change: Json, message: str
) -> None:
    for name, value in change.items():
        setattr(cluster, name, value)
    with pytest.raises(SystemExit, match=message):
        run_checks()


@pytest.mark.slow
def test_the_tests_evolution_runs(helm4: Helm, s3: S3Server, tmp_path: Path) -> None:
    """Run the init container and the evolution on this machine instead of a cluster."""
    storage = with_overrides({"storage": s3.storage("chart").to_json()})["storage"]
    objects = helm4.template({"test": {"storage": storage}})
    (container,) = find(objects, "Pod", "selfemo-test")["spec"]["initContainers"]
    variables = {v["name"]: v["value"] for v in container["env"]}
    script = CHART / "files" / "test" / "prepare.py"
    environment = {**os.environ, **variables}
    subprocess.run([sys.executable, str(script)], env=environment, check=True, timeout=300)
    file = tmp_path / "evolution.yaml"
    file.write_text(find(objects, "ConfigMap", "selfemo-test")["data"]["evolution.yaml"])
    program = str(Path(sys.executable).parent / "selfemo")
    command = [program, "run", str(file), "--state", str(tmp_path / "state"), "--output", "json"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    result = json.loads(process.stdout)
    assert result["phase"] == "Succeeded"
    assert "Train" in process.stderr
    trained = [
        line for line in process.stderr.splitlines() if "Train " in line and "rows in" in line
    ]
    assert trained and " 0 rows" not in trained[0]
