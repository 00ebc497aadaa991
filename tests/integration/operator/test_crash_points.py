"""SIGKILL of the operator before and after every write that it makes in a reference run."""

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
from tests.integration.operator.conftest import Evolutions, operators, own_namespace
from tests.integration.operator.pods import Pods
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.proxy import Proxy

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.xdist_group("operator"),
]

STAGES = 6
POLICY = {"maxGenerations": 1}
AT_ONCE = 4
"""Cases side by side: most of a case is waiting for the Job controller."""


@dataclass
class Case:
    """One evolution in a namespace of its own, and what lets its operator die."""

    evolutions: Evolutions
    proxy: Proxy
    start: Any

    def run(self, number: int | None, moment: str) -> dict[str, Any]:
        """Run to the end with a kill at the n-th write (or with none); return the end state."""
        operator: OperatorProcess = self.start()
        died = threading.Event()

        def strike(at: int) -> None:
            if at == number and not died.is_set():
                operator.kill()
                died.set()

        setattr(self.proxy, moment, strike)
        self.evolutions.create("demo", evolution=POLICY)
        if number is not None:
            assert died.wait(90), f"{moment} {number}: the write was never made"
            self.start()
        end = _picture(self.evolutions.wait_end("demo", seconds=180))
        _each_stage_once(self.evolutions)
        return end


@contextmanager
def case(kube: KubeClient, name: str, folder: Path) -> Iterator[Case]:
    """Make a namespace with pods that end, and operators behind a proxy."""
    folder.mkdir()
    with ExitStack() as stack:
        namespace = stack.enter_context(own_namespace(kube, name))
        proxy = Proxy(kube)
        stack.callback(proxy.stop)
        kubeconfig = proxy.kubeconfig(folder / "kubeconfig")
        start = stack.enter_context(operators(kubeconfig, namespace, folder))
        pods = Pods(kube, namespace)
        pods.start()
        stack.callback(pods.stop)
        yield Case(Evolutions(kube, namespace), proxy, start)


def test_a_kill_at_any_write_changes_nothing(kube: KubeClient, tmp_path: Path) -> None:
    with case(kube, "crash-reference", tmp_path / "reference") as reference:
        expected = reference.run(None, "before")
        writes = len(reference.proxy.writes)
    assert writes >= 2 * STAGES

    def killed(number: int, moment: str) -> str:
        name = f"crash-{moment}-{number:02d}"
        try:
            with case(kube, name, tmp_path / name) as found:
                end = found.run(number, moment)
        except AssertionError as error:
            return f"{name}: {error}"
        return "" if end == expected else f"{name}: {end}"

    cases = [(number, moment) for number in range(writes) for moment in ("before", "after")]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [text for text in pool.map(lambda c: killed(*c), cases) if text]
    assert not failed, "\n".join([str(expected), *failed])


def _picture(evolution: dict[str, Any]) -> dict[str, Any]:
    """Return the end state without times and object ids."""
    status = evolution["status"]
    return {
        "phase": status["phase"],
        "best": status["best"]["generation"],
        "history": [(g["generation"], g["outcome"], g["f1"]) for g in status["history"]],
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
    }


def _each_stage_once(evolutions: Evolutions) -> None:
    """Each (generation, stage) has one Job, and it has succeeded once."""
    jobs = evolutions.jobs()
    assert len(jobs) == STAGES, sorted(j["metadata"]["name"] for j in jobs)
    assert all(j["status"].get("succeeded") == 1 for j in jobs)
