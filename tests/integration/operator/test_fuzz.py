"""Any spec is refused with the field's name, or told in a condition, or run; never a hot loop."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import document
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.proxy import Proxy
from tests.integration.operator.specs import Place, changed, edits

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("operator"),
]

EXAMPLES = 500
KEPT = 20
"""How many of the accepted stay to the end, to see that nothing goes on about them."""


def _named(place: Place, message: str) -> bool:
    """Whether a refusal leads to a place: its own name, or that of what holds it."""
    words = [str(part) for part in place if not isinstance(part, int)]
    return any(word in message for word in words)


def test_any_spec_is_refused_or_reported_or_run(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    kube: KubeClient,
    namespace: str,
    tmp_path: Path,
) -> None:
    proxy = Proxy(kube)
    operator = make_operator(kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig"))
    ends: Counter[str] = Counter()
    numbers = count()
    kept: list[str] = []
    base = document("x")["spec"]  # its pods wait for ever: there is no node

    @given(edits())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,  # the same specs for everyone
        suppress_health_check=list(HealthCheck),
    )
    def check(made: list[tuple[Place, Any]]) -> None:
        spec = base
        for place, value in made:
            spec = changed(spec, place, value)
        name = f"f{next(numbers):04d}"
        body = {**document(name), "spec": spec}
        try:
            kube.create(names.evolutions_path(namespace), body)
        except ApiError as error:
            assert error.status in (400, 422), (error, made)
            assert any(_named(place, error.message) for place, _ in made), (error.message, made)
            ends["refused"] += 1
            return
        ends[_told(evolutions, operator, name)] += 1
        if len(kept) < KEPT:
            kept.append(name)
            return
        item = evolutions.get(name)
        kube.delete(names.evolution_path((namespace, name)), item["metadata"]["uid"])

    try:
        check()
        assert min(ends[kind] for kind in ("refused", "reported", "run")) >= 8, ends
        time.sleep(12)  # what was waiting, and two resyncs
        writes, reads = len(proxy.writes), len(proxy.reads)
        time.sleep(12)
        assert proxy.writes[writes:] == []
        # three resyncs at most: lists, watches, and the pods of each Job that has not started
        assert len(proxy.reads) - reads <= 3 * (4 + len(kept)), Counter(proxy.reads[reads:])
    finally:
        print(json.dumps(ends))
        proxy.stop()


def _told(evolutions: Evolutions, operator: OperatorProcess, name: str) -> str:
    """Wait until the operator has said what becomes of an evolution; return it in a word."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        item = evolutions.get(name)
        if item["spec"].get("managedBy") not in (None, "selfemo.dev/operator"):
            return "another controller's"
        status = item.get("status", {})
        said = {c["type"]: c for c in status.get("conditions", [])}
        if said.get("Stalled", {}).get("status") == "True":
            assert said["Stalled"]["message"], item
            return "reported"
        if any(j["metadata"]["name"].startswith(f"{name}-g000") for j in evolutions.jobs()):
            return "run"
        if item["spec"].get("suspend") and status.get("phase") == "Suspended":
            return "suspended"
        time.sleep(0.05)
    raise AssertionError(f"nothing was told of {json.dumps(item)}: {operator.text()[-2000:]}")
