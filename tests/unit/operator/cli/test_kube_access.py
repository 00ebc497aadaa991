"""Which cluster `kubectl selfemo` works on, and how it fails: the client against a small server."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.selfemo_commands import Outcome, invoke
from tests.unit.api.documents import VALID

from selfemo_operator.cli.kube_access import Access
from selfemo_operator.local.state import RunnerError

LIST = "/apis/selfemo.dev/v1alpha1/namespaces/{}/emotionevolutions"


def evolution(name: str, namespace: str) -> dict[str, Any]:
    return {**VALID, "metadata": {"name": name, "namespace": namespace, "uid": "0123456789"}}


class ApiServer(ThreadingHTTPServer):
    """Has evolutions in two namespaces, and records what is asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, str]] = []
        #: The status and the body of every response, if they are not those of the evolutions.
        self.failure: tuple[int, str] | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path, self.headers["Authorization"] or ""))
        missing = (404, failure("NotFound", f"{self.path} not found"))
        self.answer(*(self.server.failure or self.content() or missing))

    do_PATCH = do_GET

    def content(self) -> tuple[int, str] | None:
        """Return the status and the body for a path; None if there is no such object."""
        contents: dict[str, Any] = {"/version": {"gitVersion": "v1.36.0"}}
        contents["/openapi/v3/apis/selfemo.dev/v1alpha1"] = {}
        contents["/apis/selfemo.dev/v1alpha1/emotionevolutions"] = self.page()
        for namespace, names in {"default": ["demo", "other"], "team": ["theirs"]}.items():
            items = [evolution(name, namespace) for name in names]
            path = LIST.format(namespace)
            contents[path] = {"items": items, "metadata": {}}
            contents |= {f"{path}/{item['metadata']['name']}": item for item in items}
        content = contents.get(self.path.partition("?")[0])
        return None if content is None else (200, json.dumps(content))

    def page(self) -> dict[str, Any]:
        """Return one of two pages of a list."""
        last = "continue=more" in self.path
        items = [evolution("theirs", "team")] if last else [evolution("demo", "default")]
        return {"items": items, "metadata": {} if last else {"continue": "more"}}

    def answer(self, status: int, body: str) -> None:
        data = body.encode()
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def failure(reason: str, message: str) -> str:
    return json.dumps({"kind": "Status", "reason": reason, "message": message})


@pytest.fixture
def server() -> Iterator[ApiServer]:
    server = ApiServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def config(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with two contexts, which is the default of the user."""
    cluster = {"name": "c", "cluster": {"server": server.url}}
    away = {"name": "away", "cluster": {"server": "http://127.0.0.1:9"}}
    users = [{"name": name, "user": {"token": f"token-{name}"}} for name in ("ann", "bob")]
    contexts = {
        "first": {"cluster": "c", "user": "ann"},
        "second": {"cluster": "c", "user": "bob", "namespace": "team"},
        "unreachable": {"cluster": "away", "user": "ann"},
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster, away],
        "users": users,
        "contexts": [{"name": name, "context": context} for name, context in contexts.items()],
        "current-context": "first",
    }
    path = tmp_path / "home" / ".kube" / "config"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return path


def kubectl(*words: str) -> Outcome:
    return invoke("kubectl selfemo", *words)


def names_of(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome.err
    return [item["name"] for item in json.loads(outcome.out)]


# Context, namespace, kubeconfig -------------------------------------------------------------------


def test_the_default_is_the_current_context_and_its_namespace(server: ApiServer) -> None:
    assert names_of(kubectl("list", "-o", "json")) == ["demo", "other"]
    assert server.requests[-1][2] == "Bearer token-ann"


def test_a_context_has_its_own_user_and_namespace(server: ApiServer) -> None:
    assert names_of(kubectl("list", "-o", "json", "--context", "second")) == ["theirs"]
    assert server.requests[-1][2] == "Bearer token-bob"


def test_the_namespace_of_an_option_wins() -> None:
    words = ["list", "-o", "json", "--context", "second"]
    assert names_of(kubectl(*words, "-n", "default")) == ["demo", "other"]
    assert names_of(kubectl(*words, "--namespace", "team")) == ["theirs"]


def test_all_namespaces_page_by_page() -> None:
    assert names_of(kubectl("list", "-A", "-o", "json")) == ["demo", "theirs"]
    rows = kubectl("list", "-A").out.splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [["default", "demo"], ["team", "theirs"]]
    assert "RUNNER" not in rows[0]


def test_the_kubeconfig_of_an_option_and_of_the_environment(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.write_text(
        config.read_text().replace("current-context: first", "current-context: second")
    )
    assert names_of(kubectl("list", "-o", "json", "--kubeconfig", str(other))) == ["theirs"]
    monkeypatch.setenv("KUBECONFIG", str(other))
    assert names_of(kubectl("list", "-o", "json")) == ["theirs"]
    assert names_of(kubectl("list", "-o", "json", "--kubeconfig", str(config)))[0] == "demo"


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (("status", "theirs"), "GET"),
        (("watch", "theirs", "--once"), "GET"),
        (("suspend", "theirs"), "PATCH"),
        (("resume", "theirs"), "PATCH"),
    ],
)
def test_every_command_takes_the_options(
    words: tuple[str, ...], method: str, server: ApiServer
) -> None:
    assert kubectl(*words, "--context", "second").code == 0
    assert kubectl(*words, "-n", "team").code == 0
    path = f"{LIST.format('team')}/theirs"
    requests = [(m, p, t.removeprefix("Bearer token-")) for m, p, t in server.requests]
    assert requests == [(method, path, "bob"), (method, path, "ann")]


def test_logs_passes_the_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("shutil.which", lambda _: "/bin/kubectl")
    monkeypatch.setattr(os, "execv", lambda _, arguments: started.append(arguments))
    config = str(tmp_path / "home" / ".kube" / "config")
    words = ["logs", "theirs", "--context", "second", "--kubeconfig", config]
    assert kubectl(*words, "--stage", "Train", "--generation", "2").code == 0
    assert started[0][:8] == [
        *("/bin/kubectl", "logs", "--namespace", "team", "--context", "second"),
        *("--kubeconfig", config),
    ]
    selector = started[0][started[0].index("--selector") + 1]
    assert selector.endswith("=theirs,app.kubernetes.io/component=train,selfemo.dev/generation=002")


def test_results_as_json() -> None:
    status = json.loads(kubectl("status", "demo", "-o", "json").out)
    assert (status["name"], status["namespace"], status["phase"]) == ("demo", "default", "Pending")
    assert json.loads(kubectl("suspend", "demo", "-o", "json").out)["suspend"] is True
    assert kubectl("resume", "demo").out == "default/demo is resumed\n"


# How it fails -------------------------------------------------------------------------------------


def line(outcome: Outcome, code: int) -> str:
    assert (outcome.code, outcome.out) == (code, ""), outcome
    assert outcome.err.count("\n") == 1
    assert "Traceback" not in outcome.err
    return outcome.err.partition(": ")[2]


def test_no_kubeconfig(config: Path) -> None:
    config.unlink()
    message = line(kubectl("list"), 2)
    assert message == "there is no kubeconfig: specify one with --kubeconfig or KUBECONFIG\n"


def test_a_kubeconfig_that_is_not_there() -> None:
    message = line(kubectl("status", "demo", "--kubeconfig", "/none"), 2)
    assert message == "--kubeconfig /none: the file does not exist\n"


def test_an_environment_variable_that_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/none")
    assert line(kubectl("list"), 2).startswith("the kubeconfig /none cannot be used: ")


@pytest.mark.parametrize("content", ["", "{", "- 1", "a: b", "contexts: 7", "\x00", "clusters: []"])
def test_a_damaged_kubeconfig(content: str, config: Path) -> None:
    config.write_text(content)
    assert line(kubectl("list"), 2).startswith(f"the kubeconfig {config} cannot be used: ")


def test_a_kubeconfig_without_a_current_context(config: Path) -> None:
    config.write_text(config.read_text().replace("current-context: first\n", ""))
    assert names_of(kubectl("list", "-o", "json", "--context", "second")) == ["theirs"]
    message = line(kubectl("list"), 2)
    assert "does not set a current context: specify --context; " in message
    assert message.endswith("available contexts: first, second, unreachable\n")


def test_an_unknown_context() -> None:
    message = line(kubectl("list", "--context", "secnd"), 2)
    assert message.endswith("does not contain the context `secnd`: did you mean `second`?\n")
    message = line(kubectl("list", "--context", "x"), 2)
    assert message.endswith(
        "does not contain the context `x`; available contexts: first, second, unreachable\n"
    )


def test_no_such_evolution() -> None:
    message = line(kubectl("status", "dmo"), 2)
    assert message == "there is no evolution dmo in namespace default: did you mean `demo`?\n"
    message = line(kubectl("suspend", "x", "-n", "team"), 2)
    assert message == "there is no evolution x in namespace team\n"


def test_the_server_does_not_respond() -> None:
    message = line(kubectl("list", "--context", "unreachable"), 75)
    assert message.startswith("the API server at http://127.0.0.1:9 does not respond: ")
    message = line(kubectl("watch", "demo", "--context", "unreachable"), 75)
    assert message.startswith("the API server at http://127.0.0.1:9 does not respond: ")


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (
            401,
            failure("Unauthorized", "Unauthorized"),
            2,
            "rejects the kubeconfig's credentials",
        ),
        (
            403,
            failure("Forbidden", 'emotionevolutions.selfemo.dev is forbidden: User "ann" cannot'),
            2,
            'User "ann" cannot: ask for the permission, or specify another --namespace or '
            "--context\n",
        ),
        (
            404,
            "404 page not found\n",
            2,
            "does not have the EmotionEvolution resource: install the chart",
        ),
        (
            500,
            failure("InternalError", "etcd\nis away"),
            75,
            "reports 500 InternalError: etcd is away",
        ),
        (503, "", 75, "reports 503"),
        (429, failure("TooManyRequests", "try later"), 75, "reports 429 TooManyRequests"),
        (200, "<html>", 75, "does not respond: GET"),
    ],
)
@pytest.mark.parametrize("words", [("list",), ("status", "demo"), ("watch", "demo")])
def test_the_server_refuses(
    words: tuple[str, ...], status: int, body: str, code: int, message: str, server: ApiServer
) -> None:
    server.failure = (status, body)
    assert message in line(kubectl(*words), code)


def test_errors_as_json(server: ApiServer) -> None:
    server.failure = (403, failure("Forbidden", "no"))
    outcome = kubectl("status", "demo", "-o", "json")
    content = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (2, "")
    assert (content["kind"], content["exitCode"]) == ("BadInput", 2)


def test_the_doctor_looks_at_the_cluster(server: ApiServer) -> None:
    text = Access().describe(5)
    assert text == f"Kubernetes v1.36.0 at {server.url}, with the EmotionEvolution resource"
    server.failure = (404, "404 page not found")
    with pytest.raises(RunnerError, match="does not have the EmotionEvolution resource"):
        Access().describe(5)


def test_help_needs_neither_a_cluster_nor_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert kubectl("watch", "-h").code == 0
