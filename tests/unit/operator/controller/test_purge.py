"""The purge Job of an evolution whose `podTemplate` is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.operator.controller.fake_api import KEY, FakeApiServer
from tests.unit.operator.controller.fake_operator import (
    SETTINGS,
    FakeOperator,
    reconcile_times,
    server_time,
)

from selfemo_operator.controller.objects import names

Json = dict[str, Any]
STORAGE = {"uri": "s3://bucket/runs", "whenDeleted": "Delete"}
ROOT = {"name": "setup", "image": "i", "securityContext": {"privileged": True}}


def purge_jobs(server: FakeApiServer) -> list[Json]:
    jobs = server.jobs()
    return [j for j in jobs if j["metadata"]["labels"][names.LABEL_COMPONENT] == names.PURGE]


@pytest.mark.parametrize("stages", [None, ["Train"]], ids=["all stages", "another stage"])
def test_a_refused_evolution_has_no_purge_job(stages: list[str] | None) -> None:
    template = [{"stages": stages, "template": {"initContainers": [ROOT]}}]
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE, podTemplate=template)
    operator = FakeOperator(server)
    reconcile_times(operator, 5)
    assert "initContainers[setup]" in server.condition("Stalled")["message"]
    assert server.jobs() == []
    allowed = replace(SETTINGS, jobs=replace(SETTINGS.jobs, host_access=True))
    reconcile_times(FakeOperator(server, settings=allowed), 5)
    (job,) = purge_jobs(server)
    inits = job["spec"]["template"]["spec"].get("initContainers", [])
    assert [c["name"] for c in inits] == ([] if stages else ["setup"])


def test_an_edit_that_is_refused_deletes_the_purge_job() -> None:
    """A deletion would start it otherwise: with what was allowed before, or with what was not."""
    server = FakeApiServer()
    server.add_evolution(storage=STORAGE)
    operator = FakeOperator(server)
    reconcile_times(operator, 5)
    assert purge_jobs(server)
    server.edit(podTemplate=[{"template": {"initContainers": [ROOT]}}])
    reconcile_times(operator, 5)
    assert purge_jobs(server) == []
    server.remove(names.evolution_path(KEY))
    with server_time(server):
        reconcile_times(operator, 3)
    assert purge_jobs(server) == []
