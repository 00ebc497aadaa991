"""The stage as a whole: what it leaves, and that it may be killed at each write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.unit.jobs.stages.publish.planned_runs import Killed, PlannedRun, context_of
from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.contract import ENV_WORK, StageConfig
from selfemo_api.results import StageResult
from selfemo_api.spec import StorageSpec
from selfemo_api.stages import Stage
from selfemo_api.status import Outcome
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import best_uri, read_best_manifest
from selfemo_jobs.models.description_file import read_description
from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.model_places import find_model
from selfemo_jobs.models.model_reference import ReferenceOptions, locate_model, resolve_model
from selfemo_jobs.models.resume import resumed_model
from selfemo_jobs.report.report_builder import build_report
from selfemo_jobs.report.run_info import OUTCOMES, info_of_config
from selfemo_jobs.runtime.run_reader import read_records, recorded_outcomes
from selfemo_jobs.stages.publish import report_page
from selfemo_jobs.stages.publish.stage import PROGRAM
from selfemo_jobs.store import Store, join, open_store
from selfemo_jobs.trackers.track import read_run
from selfemo_operator.planner.types import Failure

F1S = (0.3, 0.4, 0.35, 0.5, 0.45)


@dataclass(frozen=True)
class Place:
    """A storage, a place to publish to, and a function that makes a run."""

    storage: StorageSpec
    target: str

    @property
    def store(self) -> Store:
        return open_store(self.storage)

    def run(self, publishes: Any = None, **changes: Any) -> PlannedRun:
        """Return a run of four generations whose Publish is the real program."""
        storage = {**self.storage.to_json(), "keep": "Best"}
        spec = spec_of(
            **{"stopping": {"maxGenerations": 4, "patience": 4}, "storage": storage, **changes}
        )
        return PlannedRun(
            spec, F1S, store=self.store, publishes=publishes or publish_really, described=True
        )


def publish_really(config: StageConfig, _store: Store) -> StageResult:
    result = PROGRAM.run(config)
    assert isinstance(result, StageResult)
    return result


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    if request.param == "file":
        return Place(StorageSpec(uri=f"{tmp_path.as_uri()}/store"), f"{tmp_path.as_uri()}/to")
    storage = request.getfixturevalue("s3").storage(f"{tmp_path.name}/store")
    return Place(storage, storage.uri.removesuffix("/store") + "/to")


def test_after_a_run_the_best_model_is_at_each_address(place: Place, tmp_path: Path) -> None:
    run = place.run(publish=place.target)
    run.settle()
    assert run.status.best is not None
    assert run.status.best.generation == 3
    assert list(run.models()) == [3]
    options = ReferenceOptions(storage=place.storage, cache=tmp_path / "cache")
    copied = ReferenceOptions(storage=place.storage, cache=tmp_path / "other")
    for reference in (run.run_uri, best_uri(run.run_uri), run.models()[3].uri):
        folder, description = resolve_model(reference, options)
        assert b'"003"' in (folder / "model.safetensors").read_bytes()
        assert [s.weighted_f1 for s in description.scores] == [0.5]
        assert [s.weighted_f1 for s in description.baseline_scores] == [0.3]
    folder, description = resolve_model(place.target, copied)
    assert b'"003"' in (folder / "model.safetensors").read_bytes()
    assert [s.weighted_f1 for s in description.scores] == [0.5]
    assert read_description(folder) == description
    assert not list((tmp_path / "work").rglob("*.safetensors")), "a copy stays on this machine"
    page = run.store.get(join(run.run_uri, "report.html")).decode()
    assert "demo" in page and "generation 4" in page
    assert run.results[(4, Stage.EVALUATE)].scores[0].weighted_f1 == 0.45


def test_outcomes_that_the_status_no_longer_has_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    storage = StorageSpec(uri=f"{tmp_path.as_uri()}/store")
    spec = spec_of(
        stopping={"maxGenerations": 14, "patience": 14},
        storage=storage.to_json(),
    )
    run = PlannedRun(
        spec, (0.3, 0.5, 0.4), store=open_store(storage), publishes=publish_really, described=True
    )
    run.settle()
    context = context_of(run.configs[-1], run.store)
    numbers = list(range(15))
    expected = dict.fromkeys(numbers, Outcome.ROLLED_BACK)
    expected |= {0: Outcome.BASELINE, 1: Outcome.PROMOTED}
    assert context.config.outcomes is not None
    assert len(context.config.outcomes.generations) < len(numbers)

    records = read_records(run.store, run.run_uri)
    outcomes = recorded_outcomes(records)
    assert {n: outcome.outcome for n, outcome in outcomes.items()} == expected
    assert outcomes[1].model_uri.startswith("storage:/default/demo-")
    shown = build_report(records, info_of_config(context.config)).generations
    assert [row.outcome for row in shown] == [OUTCOMES[expected[n]] for n in numbers]
    assert all(row.message for row in shown[1:])
    for generation in read_run(context).generations:
        values = {point.name: point.value for point in generation.points}
        assert values["outcome/promoted"] == (generation.generation == 1)


def test_a_removed_model_is_explained_in_one_line(place: Place, tmp_path: Path) -> None:
    run = place.run()
    run.settle()
    uri = f"{run.run_uri}/generations/001/train/model"
    message = (
        rf"^{uri} was removed at the end of generation 3, because `storage.keep` is Best: use the "
        rf"run's best model, {best_uri(run.run_uri)}, or set `storage.keep: All` before the models "
        "are removed$"
    )
    with pytest.raises(BadInput, match=message):
        fetch_model(uri, None, run.store, tmp_path)
    with pytest.raises(BadInput, match=message):
        locate_model(uri, ReferenceOptions(storage=place.storage))
    manifest = f"{run.run_uri}/generations/001/train/manifest.json"
    assert resumed_model(manifest, run.store) == (uri, None)
    with pytest.raises(BadInput, match=message):
        resolve_model(manifest, ReferenceOptions(storage=place.storage, cache=tmp_path))
    with pytest.raises(BadInput, match=message):
        find_model(manifest, None, run.store, tmp_path)
    with pytest.raises(BadInput, match=r"002/train/model was removed at the end of generation 2"):
        fetch_model(uri.replace("001", "002"), None, run.store, tmp_path)


def test_a_path_to_a_removed_model_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    run = Place(StorageSpec(uri=f"{tmp_path.as_uri()}/store"), "").run()
    run.settle()
    path = run.run_uri.removeprefix("file://") + "/generations/001/train/model"
    with pytest.raises(BadInput, match="was removed at the end of generation 3"):
        locate_model(path)


class KilledAt:
    """Lets the n-th write of all stores end the process, as far as a test can."""

    def __init__(self, patch: pytest.MonkeyPatch, kind: type[Store]) -> None:
        self.left: int | None = None
        self.count = 0
        for name in ("put", "put_if_absent", "replace", "remove", "delete", "upload"):
            patch.setattr(kind, name, self._wrapped(getattr(kind, name), name))

    def _wrapped(self, original: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(store: Store, *arguments: Any) -> Any:
            if name == "remove" and self.left is not None:  # some of the files are removed
                for info in store.list(arguments[0]):
                    store.delete(info.uri)
            self.count += 1
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise Killed
            return original(store, *arguments)

        return call


@pytest.fixture
def kill(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[KilledAt]:
    yield KilledAt(monkeypatch, type(place.store))


def content(store: Store, *uris: str) -> dict[str, bytes]:
    """Return all objects except for those with times."""
    objects = [info.uri for uri in uris for info in store.list(uri)]
    return {uri: store.get(uri) for uri in objects if not uri.endswith("/run.json")}


@pytest.mark.parametrize(
    "place", ["file", pytest.param("s3", marks=pytest.mark.slow)], indirect=True
)
def test_killed_at_each_write_it_ends_the_same(
    place: Place, kill: KilledAt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publish of generation 3 writes everything: a new best, a copy, removals."""
    monkeypatch.setattr(report_page, "report_page", lambda *_: b"<title>the report</title>")
    started: list[StageConfig] = []

    def stop_at_3(config: StageConfig, store: Store) -> StageResult | None:
        if config.generation == 3:
            started.append(config)
            raise Killed
        return publish_really(config, store)

    run = place.run(stop_at_3, publish=place.target)
    while not started:
        run.step()
    (config,) = started
    for info in run.store.list(run.run_uri):
        if any(f"/{stage}/" in info.uri for stage in ("check", "selfplay", "score", "flywheel")):
            run.store.delete(info.uri)  # Publish does not read them, and this test is long
    before = content(run.store, run.run_uri, place.target)
    kill.count = 0
    publish_really(config, run.store)
    expected, writes = content(run.store, run.run_uri, place.target), kill.count
    assert writes > 15
    assert before.keys() - expected.keys() == {
        uri for uri in before if "/001/train/model/" in uri or "/002/train/model/" in uri
    }
    for number in range(writes + 20):  # a removal has several writes now
        for uri in expected.keys() - before.keys():
            run.store.delete(uri)
        for uri, data in before.items():
            if expected.get(uri) != data:
                run.store.put(uri, data)
        kill.left = number
        try:
            publish_really(config, run.store)
        except Killed:
            kill.left = None
            best, _ = read_best_manifest(run.store, best_uri(run.run_uri))
            assert best.generation in {1, 3}
            model, _ = resumed_model(best_uri(run.run_uri), run.store)
            assert fetch_model(model, None, run.store, tmp_path / "cache")
            publish_really(config, run.store)
        else:
            kill.left = None
            break
        assert content(run.store, run.run_uri, place.target) == expected, number
    else:
        raise AssertionError("it was killed each time")
    assert number >= writes


def test_a_copy_that_fails_loses_nothing_and_is_made_after_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    place = Place(StorageSpec(uri=f"{tmp_path.as_uri()}/store"), f"{tmp_path.as_uri()}/to")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "notes.txt").write_text("not of a model, and not to be lost")
    (tmp_path / "to" / "thesis.tex").write_text("mine")
    problems: list[BadInput] = []

    def publishes(config: StageConfig, store: Store) -> StageResult:
        try:
            return publish_really(config, store)
        except BadInput as error:
            problems.append(error)
            raise

    run = place.run(publishes, publish=place.target)
    original = run.perform

    def perform(config: StageConfig) -> StageResult:
        try:
            return original(config)
        except BadInput as error:
            failure = Failure(str(error), exit_code=2)
            run.failing = lambda _: failure
            return failed

    failed = StageResult(stage=Stage.PUBLISH, generation=1, manifest="x", manifest_sha256="0" * 64)
    monkeypatch.setattr(run, "perform", perform)
    run.settle()
    assert run.status.finished
    assert run.status.phase == "Failed"
    assert (run.status.generation, run.status.stage) == (1, Stage.PUBLISH)
    (problem,) = problems
    assert str(problem).startswith(
        f"`publish`: {place.target} contains other files (notes.txt): choose"
    )
    assert list(run.models()) == [1]
    best, _ = read_best_manifest(run.store, best_uri(run.run_uri))
    assert best.generation == 1
    run.failing = lambda _: None
    run.edit(publish=f"{place.target}/model")
    run.settle()
    assert run.status.phase == "Succeeded"
    assert b'"003"' in (tmp_path / "to" / "model" / "model.safetensors").read_bytes()
    assert (tmp_path / "to" / "thesis.tex").read_text() == "mine"


def test_its_manifest_has_the_figures(place: Place) -> None:
    run = place.run(publish=place.target)
    run.settle()
    uri = join(run.run_uri, "generations/004/publish/manifest.json")
    manifest = json.loads(run.store.get(uri))
    assert manifest["metrics"] == {"copiedFiles": 5.0, "removedModels": 3.0, "reportFailures": 0.0}
    assert manifest["parts"] == []
    assert set(manifest["parents"]) == {"train", "evaluate"}
    assert manifest["config"]["storage.keep"] == "Best"
    first = json.loads(run.store.get(uri.replace("004", "000")))
    assert first["metrics"] == {"copiedFiles": 0.0, "removedModels": 0.0, "reportFailures": 0.0}


def test_without_outcomes_it_says_so(make_config: Callable[..., StageConfig]) -> None:
    with pytest.raises(BadInput, match="has no `outcomes`"):
        PROGRAM.run(make_config(Stage.PUBLISH))
