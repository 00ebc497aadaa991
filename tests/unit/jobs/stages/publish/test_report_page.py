"""The report in the storage. One that cannot be made does not end the generation."""

from __future__ import annotations

import pytest
from tests.unit.jobs.stages.publish.planned_runs import MemoryStore, PlannedRun, context_of
from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, Terminated, Unavailable
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.stages.publish import report_page
from selfemo_jobs.stages.publish.report_page import write_report
from selfemo_jobs.store import join


@pytest.fixture
def context() -> StageContext:
    run = PlannedRun(spec_of(stopping={"maxGenerations": 1}))
    run.settle()
    return context_of(run.configs[-1], run.store)


def test_it_is_in_the_folder_of_the_run(context: StageContext) -> None:
    output = write_report(context)
    assert output.metrics == {"reportFailures": 0.0}
    assert output.report == {}
    page = context.store.get(join(context.run_uri, "report.html")).decode()
    assert page.startswith("<!")
    assert "After generation 1" in page
    write_report(context)
    assert context.store.get(join(context.run_uri, "report.html")).decode() == page


@pytest.mark.parametrize("error", [BadInput("a table is damaged"), ValueError("a bug\nhere")])
def test_a_report_that_cannot_be_made_is_a_warning(
    context: StageContext,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(report_page, "report_page", fail)
    output = write_report(context)
    assert output.metrics == {"reportFailures": 1.0}
    reason = output.report["reportError"]
    assert reason == f"{type(error).__name__}: {' '.join(str(error).split())}"
    assert f"the report could not be made; the run goes on: {reason}" in caplog.text


def test_a_damaged_manifest_is_a_warning(context: StageContext) -> None:
    uri = join(context.run_uri, "generations/000/check/manifest.json")
    context.store.put(uri, b"{}")
    output = write_report(context)
    assert output.metrics == {"reportFailures": 1.0}
    assert output.report["reportError"].startswith(f"BadInput: {uri} is not a manifest")


@pytest.mark.parametrize("error", [Unavailable("S3 is away"), Terminated("SIGTERM")])
def test_what_is_tried_again_is_raised(
    context: StageContext, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(MemoryStore, "put", fail)
    with pytest.raises(type(error)):
        write_report(context)


def test_each_generation_writes_it_again() -> None:
    pages: list[bytes] = []

    def publishes(config: object, store: object) -> None:
        context = context_of(config, store)  # type: ignore[arg-type]
        write_report(context)
        pages.append(context.store.get(join(context.run_uri, "report.html")))

    run = PlannedRun(spec_of(stopping={"maxGenerations": 2}), publishes=publishes)
    run.settle()
    assert [c.generation for c in run.configs if c.stage is Stage.PUBLISH] == [0, 1, 2]
    assert len(set(pages)) == 3
