"""Any spec is rejected with the name of the field, reported in a condition, or run; no hot loop."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.integration.operator.api import document
from tests.integration.operator.conftest import Evolutions
from tests.integration.operator.counting_proxy import CountingProxy
from tests.integration.operator.process import OperatorProcess
from tests.integration.operator.spec_strategies import Place, changed, edits

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("operator"),
]

EXAMPLES = 500
SEED = 1
"""The same specs in every run. `derandomize` would take the seed from the source of the test."""
REMAINING = 20
"""The number of accepted evolutions that stay to the end, to check that they cause no writes."""


def _names_field(place: Place, message: str) -> bool:
    """Return whether an error message names a field or one of its parents."""
    words = [str(part) for part in place if not isinstance(part, int)]
    return any(word in message for word in words)


def test_any_spec_is_rejected_or_reported_or_run(
    make_operator: Callable[..., OperatorProcess],
    evolutions: Evolutions,
    kube: KubeClient,
    namespace: str,
    tmp_path: Path,
) -> None:
    proxy = CountingProxy(kube)
    operator = make_operator(kubeconfig=proxy.kubeconfig(tmp_path / "kubeconfig"))
    ends: Counter[str] = Counter()
    numbers = count()
    remaining: list[str] = []
    base = document("x")["spec"]  # its pods never start: there is no node

    @seed(SEED)
    @given(edits())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def check(changes: list[tuple[Place, Any]]) -> None:
        spec = base
        for place, value in changes:
            spec = changed(spec, place, value)
        name = f"f{next(numbers):04d}"
        body = {**document(name), "spec": spec}
        try:
            kube.create(names.evolutions_path(namespace), body)
        except ApiError as error:
            assert error.status in (400, 422), (error, changes)
            assert any(_names_field(place, error.message) for place, _ in changes), (
                error.message,
                changes,
            )
            ends["rejected"] += 1
            return
        ends[_outcome(evolutions, operator, name)] += 1
        if len(remaining) < REMAINING:
            remaining.append(name)
            return
        item = evolutions.get(name)
        kube.delete(names.evolution_path((namespace, name)), item["metadata"]["uid"])

    try:
        check()
        assert min(ends[kind] for kind in ("rejected", "reported", "run")) >= 8, ends
        time.sleep(12)  # pending requeues, and two resyncs
        writes, reads = len(proxy.writes), len(proxy.reads)
        time.sleep(12)
        assert proxy.writes[writes:] == []
        # three resyncs at most: lists, watches, and the pods of each Job that has not started
        assert len(proxy.reads) - reads <= 3 * (4 + len(remaining)), Counter(proxy.reads[reads:])
    finally:
        print(json.dumps(ends))
        proxy.stop()


def _outcome(evolutions: Evolutions, operator: OperatorProcess, name: str) -> str:
    """Wait until the operator has handled an evolution; return the outcome."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        item = evolutions.get(name)
        if item["spec"].get("managedBy") not in (None, "selfemo.dev/operator"):
            return "another controller's"
        status = item.get("status", {})
        conditions = {c["type"]: c for c in status.get("conditions", [])}
        if conditions.get("Stalled", {}).get("status") == "True":
            assert conditions["Stalled"]["message"], item
            return "reported"
        if any(j["metadata"]["name"].startswith(f"{name}-g000") for j in evolutions.jobs()):
            return "run"
        if item["spec"].get("suspend") and status.get("phase") == "Suspended":
            return "suspended"
        time.sleep(0.05)
    raise AssertionError(f"no outcome of {json.dumps(item)}: {operator.text()[-2000:]}")
