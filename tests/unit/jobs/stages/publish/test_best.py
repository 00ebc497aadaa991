"""The best manifest: written once for each new best, and never over a later generation's."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.unit.jobs.stages.publish.planned_runs import (
    Killed,
    MemoryStore,
    PlannedRun,
    context_of,
    publish,
)
from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.contract import StageConfig
from selfemo_api.spec import StorageSpec
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.models.best_manifest import BestManifest, best_uri, read_best_manifest
from selfemo_jobs.models.resume import resumed_model
from selfemo_jobs.stages.publish.best import update_best
from selfemo_jobs.stages.publish.stage import outcomes_of
from selfemo_jobs.store import Store, join, open_store
from selfemo_jobs.store.hashing import sha256

F1S = (0.3, 0.4, 0.35, 0.5)


def run_of(generations: int = 3, **changes: Any) -> PlannedRun:
    stopping = {"maxGenerations": generations, "patience": 5}
    run = PlannedRun(spec_of(stopping=stopping, **changes), F1S)
    run.settle()
    return run


def publish_config(run: PlannedRun, generation: int) -> StageConfig:
    return next(c for c in run.configs if c.stage is Stage.PUBLISH and c.generation == generation)


def best_of(run: PlannedRun, store: Store | None = None) -> BestManifest:
    return read_best_manifest(store or run.store, best_uri(run.run_uri))[0]


def update(config: StageConfig, store: Store) -> BestManifest:
    return update_best(context_of(config, store), outcomes_of(context_of(config, store)).best)


def test_it_names_the_best_model_and_what_it_follows_from() -> None:
    run = run_of()
    best = best_of(run)
    assert (best.generation, best.published, best.f1) == (3, 3, 0.5)
    assert best.model == "generations/003/train/model"
    assert best.run == run.evolution.run
    assert best.description is None
    for stage, digest in (("train", best.training_sha256), ("evaluate", best.evaluation_sha256)):
        data = run.store.get(f"{run.run_uri}/generations/003/{stage}/manifest.json")
        assert digest == sha256(data)


def test_it_changes_only_with_the_best() -> None:
    contents = []

    def recording(config: StageConfig, store: Store) -> None:
        publish(config, store)
        contents.append(store.get(best_uri(run.run_uri)))

    run = PlannedRun(
        spec_of(stopping={"maxGenerations": 3, "patience": 5}), F1S, publishes=recording
    )
    run.settle()
    published = [json.loads(content)["published"] for content in contents]
    assert published == [0, 1, 1, 3]
    assert contents[1] == contents[2]


def test_a_late_attempt_does_not_bring_back_an_older_best(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = run_of()
    for generation in (0, 1, 2):
        assert update(publish_config(run, generation), run.store).generation == 3
    assert "generation 3 wrote" in caplog.text
    assert best_of(run).generation == 3


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_of_two_attempts_at_once_the_later_generation_wins(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "file":
        storage = StorageSpec(uri=f"{tmp_path.as_uri()}/store")
    else:
        storage = request.getfixturevalue("s3").storage(tmp_path.name)
    run = PlannedRun(
        spec_of(stopping={"maxGenerations": 3, "patience": 5}, storage=storage.to_json()),
        F1S,
        store=open_store(storage),
    )
    run.settle()
    uri = best_uri(run.run_uri)
    for turn in range(6):
        run.store.delete(uri)
        if turn % 2:
            update(publish_config(run, 0), run.store)
        gate = threading.Barrier(3)

        def attempt(generation: int, gate: threading.Barrier = gate) -> None:
            config = publish_config(run, generation)
            gate.wait()
            update(config, open_store(storage))

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(attempt, (1, 2, 3)))
        assert best_of(run).generation == 3


def test_killed_at_its_write_it_leaves_the_best_before() -> None:
    run = run_of()
    store = run.store
    assert isinstance(store, MemoryStore)
    store.delete(best_uri(run.run_uri))
    update(publish_config(run, 1), store)
    store.writes_left = 0
    with pytest.raises(Killed):
        update(publish_config(run, 3), store)
    assert best_of(run).generation == 1
    store.writes_left = None
    assert update(publish_config(run, 3), store) == best_of(run)
    assert best_of(run).generation == 3


class Contended(MemoryStore):
    """Another writer is faster, so many times."""

    times = 3

    def replace(self, uri: str, data: bytes, expected: bytes | None) -> bool:
        if self.times > 0 and uri.endswith("best/manifest.json"):
            self.times -= 1
            other = BestManifest(run="x", generation=0, f1=0.1 * self.times, model="hf://a/b")
            self.put(uri, other.encode())
            return False
        return super().replace(uri, data, expected)


def test_it_reads_again_until_it_has_written() -> None:
    run = run_of()
    assert isinstance(run.store, MemoryStore)
    store = Contended(dict(run.store.objects))
    update(publish_config(run, 3), store)
    assert best_of(run, store).generation == 3
    store = Contended(dict(run.store.objects))
    store.delete(best_uri(run.run_uri))
    store.times = 1000
    with pytest.raises(Unavailable, match="other writers replaced it 20 times"):
        update(publish_config(run, 3), store)


def test_a_damaged_file_is_written_again(caplog: pytest.LogCaptureFixture) -> None:
    run = run_of()
    run.store.put(best_uri(run.run_uri), b"no JSON")
    update(publish_config(run, 3), run.store)
    assert best_of(run).generation == 3
    assert "it is written again" in caplog.text


def test_a_base_model_that_is_the_best_is_described() -> None:
    model = {"uri": "hf://owner/base", "revision": "abc"}
    run = run_of(1, model=model, promotion={"minDelta": 0.5})
    best = best_of(run)
    assert (best.generation, best.model, best.revision) == (0, "hf://owner/base", "abc")
    assert best.training_sha256 is None
    assert best.description is not None
    assert best.description.labels == run.spec.dataset.labels
    assert [score.weighted_f1 for score in best.description.scores] == [0.3]
    assert best.description.baseline_scores == []
    assert resumed_model(best_uri(run.run_uri), run.store) == ("hf://owner/base", "abc")


def test_a_base_model_of_another_run_is_named_by_its_place() -> None:
    """What `resumeFrom` named when the run began: the other run goes on."""
    other = run_of()
    uri = best_uri(other.run_uri)
    spec = spec_of(
        model={"resumeFrom": uri},
        stopping={"maxGenerations": 1},
        promotion={"minDelta": 0.5},
        storage={"uri": "s3://bucket/elsewhere"},
    )
    run = PlannedRun(spec, F1S, store=other.store)
    run.read_models = lambda config: None  # type: ignore[method-assign]
    run.settle()
    best = best_of(run)
    assert best.model == f"{other.run_uri}/generations/003/train/model"
    model, _ = resumed_model(uri, other.store)
    assert resumed_model(best_uri(run.run_uri), run.store) == (model, None)


def test_after_a_restored_backup_the_status_decides_again() -> None:
    """The same generation may choose another best, once a rule was edited."""
    run = run_of()
    assert isinstance(run.store, MemoryStore)
    store = MemoryStore(dict(run.store.objects))
    edited = run_of(promotion={"minDelta": 0.15})
    assert best_of(edited).generation == 3
    config = publish_config(edited, 1)  # the baseline is still the best one
    assert update(config, store).generation == 3
    assert update(publish_config(edited, 3), store).generation == best_of(edited).generation


def test_a_removed_model_is_not_named() -> None:
    run = run_of(storage={"keep": "Best"})
    store = run.store
    assert isinstance(store, MemoryStore)
    late = publish_config(run, 1).model_copy(update={"generation": 3})
    assert update(late, store).generation == 3
    store.delete(best_uri(run.run_uri))
    with pytest.raises(BadInput, match="was removed at the end of generation 3"):
        update(late, store)
    assert not store.exists(best_uri(run.run_uri))
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        store.put(join(run.run_uri, "generations/001/train/model", name), b"again")
    assert update(late, store).generation == 1  # it was trained again
