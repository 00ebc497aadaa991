"""SIGKILL of the operator before and after every write that it makes in a reference run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfemo_operator.cluster.rest import Rest
from tests.operator.conftest import Evolutions
from tests.operator.pods import Pods
from tests.operator.process import OperatorProcess
from tests.operator.proxy import Proxy

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3000)]

GENERATIONS = 1
STAGES = 6


def _picture(evolution: dict[str, Any]) -> dict[str, Any]:
    """Return the end state without times and object ids."""
    status = evolution["status"]
    return {
        "phase": status["phase"],
        "best": status["best"]["generation"],
        "history": [(g["generation"], g["outcome"], g["f1"]) for g in status["history"]],
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
    }


def test_a_kill_at_any_write_changes_nothing(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    pods: Pods,
    rest: Rest,
    tmp_path: Path,
) -> None:
    proxy = Proxy(rest)
    kubeconfig = proxy.kubeconfig(tmp_path / "kubeconfig")
    policy = {"maxGenerations": GENERATIONS}
    try:
        operator = make_operator(kubeconfig=kubeconfig)
        evolutions.create("reference", evolution=policy)
        expected = _picture(evolutions.wait_end("reference"))
        writes = len(proxy.writes)
        operator.kill()
        assert writes >= 2 * STAGES
        for number in range(writes):
            for moment in ("before", "after"):
                name = f"{moment}-{number:02d}"
                died = _arm(proxy, operator := make_operator(kubeconfig=kubeconfig), number, moment)
                evolutions.create(name, evolution=policy)
                assert died.wait(60), f"{name}: the write was never made"
                proxy.before = proxy.after = lambda _: None
                operator = make_operator(kubeconfig=kubeconfig)
                assert _picture(evolutions.wait_end(name)) == expected, name
                operator.kill()
                _each_stage_once(evolutions, name)
    finally:
        proxy.stop()


def _arm(proxy: Proxy, operator: OperatorProcess, number: int, moment: str) -> threading.Event:
    """Let the operator die at its n-th write from now."""
    first, died = len(proxy.writes), threading.Event()

    def strike(at: int) -> None:
        if at - first == number and not died.is_set():
            operator.kill()
            died.set()

    setattr(proxy, moment, strike)
    return died


def _each_stage_once(evolutions: Evolutions, name: str) -> None:
    """Each (generation, stage) has one Job, and it has succeeded once."""
    prefix = f"{name}-g"
    jobs = [j for j in evolutions.jobs() if j["metadata"]["name"].startswith(prefix)]
    assert len(jobs) == STAGES, sorted(j["metadata"]["name"] for j in jobs)
    assert all(j["status"].get("succeeded") == 1 for j in jobs)
