"""`kubectl selfemo watch` with a real operator on a real API server."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.counting_proxy import CountingProxy
from tests.integration.operator.fake_kubelet import FakeKubelet, failing
from tests.integration.operator.process import OperatorProcess
from tests.support.cluster import Cluster
from tests.support.terminal_screen import Screen

pytestmark = pytest.mark.cluster

PROGRAM = str(Path(sys.executable).parent / "kubectl-selfemo")


def start(evolutions: Evolutions, kubeconfig: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [PROGRAM, "watch", "demo", "--namespace", evolutions.namespace, *options],
        env={"KUBECONFIG": str(kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_watches_a_run_to_its_success_on_a_terminal(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet, cluster: Cluster
) -> None:
    evolutions.create()
    command = [PROGRAM, "watch", "demo", "--namespace", evolutions.namespace]
    with Screen(command, {"KUBECONFIG": str(cluster.kubeconfig)}) as screen:
        screen.wait("Succeeded", 120)
        assert screen.end() == 0
        assert screen.text.count(f"{evolutions.namespace}/demo") == 1
        assert "MaxGenerationsReached" in screen.text
        assert "F1 by emotion, generation 2" in screen.text
    once = start(evolutions, cluster.kubeconfig, "--once")
    out, _ = once.communicate(timeout=150)
    assert once.returncode == 0
    assert "F1 by emotion, generation 2" in out


def test_a_failure_is_the_exit_code(
    operator: OperatorProcess, evolutions: Evolutions, kubelet: FakeKubelet, cluster: Cluster
) -> None:
    kubelet.ending = failing(2, "demo.jsonl is not there")
    evolutions.create()
    watching = start(evolutions, cluster.kubeconfig)
    out, error = watching.communicate(timeout=120)
    assert watching.returncode == 2, error
    assert "BadInput" in out.splitlines()[-1]
    assert "demo.jsonl is not there" in out


def test_a_missing_evolution_and_an_outage_are_reported(
    evolutions: Evolutions, kube: KubeClient, tmp_path: Path
) -> None:
    proxy = CountingProxy(kube)
    kubeconfig = proxy.kubeconfig(tmp_path / "kubeconfig")
    try:
        missing = start(evolutions, kubeconfig)
        _, error = missing.communicate(timeout=150)
        assert missing.returncode == 2
        assert f"there is no evolution demo in namespace {evolutions.namespace}" in error
        created = evolutions.create()
        watching = start(evolutions, kubeconfig)
        assert watching.stdout is not None
        assert "Pending: not started" in watching.stdout.readline()
        kube.delete(
            names.evolution_path((evolutions.namespace, "demo")), created["metadata"]["uid"]
        )
        _, error = watching.communicate(timeout=150)
        assert watching.returncode == 2
        assert "there is no evolution demo" in error
        evolutions.create()
        waiting = start(evolutions, kubeconfig)
        assert waiting.stdout is not None
        assert "Pending" in waiting.stdout.readline()
    finally:
        proxy.stop()
    assert "The API server does not respond; retrying." in waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    out, error = waiting.communicate(timeout=150)
    assert waiting.returncode == 130
    assert out == "Stopped watching; the evolution continues.\n"
    assert error == ""
