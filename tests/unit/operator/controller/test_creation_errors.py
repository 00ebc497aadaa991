"""Jobs that cannot be created: what waits, what ends the evolution, and what is told."""

from __future__ import annotations

import pytest
from tests.unit.operator.controller.fake_api import FakeApiServer, advance_clock
from tests.unit.operator.controller.fake_operator import FakeOperator
from tests.unit.operator.controller.test_reconciler import server_with_evolution

from selfemo_operator.controller.kube.client import ApiError

WEBHOOK = 'admission webhook "validate.kyverno.svc-fail" denied the request: no team label'
POLICY = (
    "jobs.batch \"demo-g000-check-1\" is forbidden: ValidatingAdmissionPolicy 'team' with binding "
    "'all' denied request: no team label"
)
BROKEN = 'Internal error occurred: failed calling webhook "validate.kyverno.svc-fail"'


def reconcile(operator: FakeOperator, server: FakeApiServer, times: int) -> None:
    for _ in range(times):
        operator.reconcile()
        operator.receive_events()
        advance_clock(server, 60)


@pytest.mark.parametrize(
    "error",
    [
        ApiError(403, "Forbidden", WEBHOOK),
        ApiError(400, "", WEBHOOK),
        ApiError(422, "Invalid", POLICY),
        ApiError(500, "InternalError", BROKEN),
        ApiError(504, "Timeout", "the server was unable to return a response"),
        ApiError(429, "TooManyRequests", "the server has too many requests"),
    ],
    ids=lambda error: f"{error.status}",
)
def test_what_an_administrator_can_fix_waits_and_goes_on(error: ApiError) -> None:
    server = server_with_evolution()
    server.failing["POST", "jobs"] = error
    operator = FakeOperator(server)
    reconcile(operator, server, 8)
    progressing = server.condition("Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "Waiting")
    assert f"demo-g000-check-1 cannot be created: {error.message}" in progressing["message"]
    assert server.condition("Stalled")["status"] == "False"
    server.failing.clear()
    reconcile(operator, server, 2)
    assert server.condition("Progressing")["status"] == "True"


def test_a_single_error_that_passes_is_not_written() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    server.failing["POST", "jobs"] = ApiError(500, "InternalError", BROKEN)
    reconcile(operator, server, 3)
    server.failing.clear()
    reconcile(operator, server, 2)
    assert server.created == ["demo-g000-check-1"]
    assert server.condition("Progressing")["reason"] == "Running"


def test_an_error_with_changing_texts_is_written_once() -> None:
    server = server_with_evolution()
    operator = FakeOperator(server)
    versions = set()
    for at in range(8):
        error = ApiError(500, "InternalError", f"{BROKEN} at second {at}")
        server.failing["POST", "jobs"] = error
        reconcile(operator, server, 1)
        versions.add(server.condition("Progressing")["message"])
    assert len(versions) == 2  # the position, and then the first error that was told
