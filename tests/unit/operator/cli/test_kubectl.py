"""`kubectl selfemo watch` during an outage of the API server."""

from __future__ import annotations

import pytest
from tests.unit.operator.controller.fake_api import KEY, FakeApiServer, FakeClient

from selfemo_operator.cli import kubectl
from selfemo_operator.cli.kube_access import Access
from selfemo_operator.controller.kube.client import ApiError

RESET = ApiError(0, "Answer", "no whole answer: the connection was reset")
REFUSED = ApiError(0, "Unreachable", "the connection is refused")


def test_an_outage_has_one_note_whatever_its_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeApiServer()
    server.add_evolution()
    monkeypatch.setattr(Access, "connect", lambda self: FakeClient(server))
    source = kubectl.ClusterSource(Access(KEY[0]), KEY[1])
    errors = [None, RESET, REFUSED, None, REFUSED]

    def fault(moment: str, number: int) -> None:
        error = errors[number]
        if moment == "before" and error is not None:
            raise error

    source._kube.fault = fault  # type: ignore[attr-defined]
    notes = [source.read()[1].note for _ in errors]
    assert notes[0] == notes[3] == ""
    assert notes[1] == notes[2]
    assert notes[1].startswith("The API server does not respond; retrying. (")
    assert "reset" in notes[1]
    assert "refused" in notes[4]
