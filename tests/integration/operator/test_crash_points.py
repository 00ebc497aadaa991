"""SIGKILL of the operator before and after each write of a run."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selfemo_operator.controller.kube.client import KubeClient
from tests.integration.operator.conftest import (
    Evolutions,
    cluster_turn,
    operators,
    own_namespace,
)
from tests.integration.operator.counting_proxy import CountingProxy
from tests.integration.operator.fake_kubelet import FakeKubelet
from tests.integration.operator.process import OperatorProcess
from tests.support.cluster import Cluster

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.xdist_group("operator"),
]

STAGES = 9
POLICY = {"maxGenerations": 1}
PARALLEL_CASES = 4
"""Cases that run at the same time: a case mostly waits for the Job controller."""


@dataclass
class Case:
    """One evolution in a namespace of its own, with a proxy that can kill its operator."""

    evolutions: Evolutions
    proxy: CountingProxy
    start: Any

    def run(self, number: int | None, moment: str) -> dict[str, Any]:
        """Run to the end with a kill at the n-th write, or without one; return the end state."""
        operator: OperatorProcess = self.start()
        died = threading.Event()

        def kill(at: int) -> None:
            if at == number and not died.is_set():
                operator.kill()
                died.set()

        setattr(self.proxy, moment, kill)
        self.evolutions.create("demo", stopping=POLICY)
        if number is not None:
            assert died.wait(90), f"{moment} {number}: the operator made no such write"
            self.start()
        end = _end_state(self.evolutions.wait_end("demo", seconds=180))
        _each_stage_once(self.evolutions)
        return end


@pytest.fixture(autouse=True)
def _turn(cluster: Cluster) -> Iterator[None]:
    with cluster_turn(cluster, alone=False):
        yield


@contextmanager
def case(kube: KubeClient, name: str, folder: Path) -> Iterator[Case]:
    """Create a namespace with a fake kubelet, and a proxy for its operators."""
    folder.mkdir()
    with ExitStack() as stack:
        namespace = stack.enter_context(own_namespace(kube, name))
        proxy = CountingProxy(kube)
        stack.callback(proxy.stop)
        kubeconfig = proxy.kubeconfig(folder / "kubeconfig")
        start = stack.enter_context(operators(kubeconfig, namespace, folder))
        kubelet = FakeKubelet(kube, namespace)
        kubelet.start()
        stack.callback(kubelet.stop)
        yield Case(Evolutions(kube, namespace), proxy, start)


def test_a_kill_at_any_write_does_not_change_the_result(kube: KubeClient, tmp_path: Path) -> None:
    with case(kube, "crash-reference", tmp_path / "reference") as reference:
        expected = reference.run(None, "before")
        writes = len(reference.proxy.writes)
    assert writes >= 2 * STAGES

    def killed(number: int, moment: str) -> str:
        name = f"crash-{moment}-{number:02d}"
        try:
            with case(kube, name, tmp_path / name) as current:
                end = current.run(number, moment)
        except AssertionError as error:
            return f"{name}: {error}"
        return "" if end == expected else f"{name}: {end}"

    cases = [(number, moment) for number in range(writes) for moment in ("before", "after")]
    with ThreadPoolExecutor(PARALLEL_CASES) as pool:
        failed = [text for text in pool.map(lambda c: killed(*c), cases) if text]
    assert not failed, "\n".join([str(expected), *failed])


def _end_state(evolution: dict[str, Any]) -> dict[str, Any]:
    """Return the end state of an evolution, without times and object ids."""
    status = evolution["status"]
    return {
        "phase": status["phase"],
        "best": status["best"]["generation"],
        "history": [(g["generation"], g["outcome"], g["f1"]) for g in status["history"]],
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
    }


def _each_stage_once(evolutions: Evolutions) -> None:
    """Check that each stage of each generation has one Job, which has succeeded once."""
    jobs = evolutions.jobs()
    assert len(jobs) == STAGES, sorted(j["metadata"]["name"] for j in jobs)
    assert all(j["status"].get("succeeded") == 1 for j in jobs)
