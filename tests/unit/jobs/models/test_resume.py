"""`spec.model.resumeFrom`: the model that another run's manifest is about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selfemo_api.spec import StorageSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import BestManifest, best_uri
from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.resume import pinned_model, resumed_model
from selfemo_jobs.runtime.manifest import Manifest
from selfemo_jobs.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StorageSpec(uri=f"file://{tmp_path}/store"))


def put(
    store: Store, stage: Stage, generation: int, policy: str, run: str = "default/first-00000001"
) -> str:
    manifest = Manifest(
        run=run,
        stage=stage,
        generation=generation,
        seed=1,
        config_sha256="0" * 64,
        config={"policyUri": policy},
        model="model" if stage in (Stage.TRAIN, Stage.WARM_START) else None,
    )
    uri = f"{store.storage.uri}/{run}/{stage_prefix(generation, stage)}/manifest.json"
    store.put(uri, manifest.encode())
    return uri


@pytest.mark.parametrize(("stage", "generation"), [(Stage.TRAIN, 2), (Stage.WARM_START, 0)])
def test_the_measured_or_the_trained_model_is_taken(
    store: Store, tiny_model: Path, tmp_path: Path, stage: Stage, generation: int
) -> None:
    trained = put(store, stage, generation, "hf://some/base")
    model = Path(trained.removeprefix("file://")).parent / "model"
    shutil.copytree(tiny_model, model)
    below = trained.removeprefix(store.storage.uri).replace("manifest.json", "model")
    measured = put(store, Stage.EVALUATE, generation, f"storage:{below}")
    for uri in (trained, measured):
        assert fetch_model(uri, None, store, tmp_path / "work") == model
    # and a run that went on from that one
    chained = put(store, Stage.EVALUATE, 0, measured, run="default/second-00000002")
    assert fetch_model(chained, None, store, tmp_path / "work") == model


def test_what_cannot_be_resumed_from_is_named(store: Store, tmp_path: Path) -> None:
    played = put(store, Stage.SELF_PLAY, 1, "hf://some/base")
    with pytest.raises(BadInput, match=r"SelfPlay.*evaluate/manifest\.json"):
        fetch_model(played, None, store, tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        fetch_model(played.replace("001", "009"), None, store, tmp_path)
    moved = f"{store.storage.uri}/elsewhere/manifest.json"
    measured = put(store, Stage.EVALUATE, 1, "storage:/default/x/model")
    store.put(moved, store.get(measured))
    with pytest.raises(BadInput, match="was moved"):
        fetch_model(moved, None, store, tmp_path)


def put_best(store: Store, model: str, run: str = "default/first-00000001") -> str:
    uri = best_uri(f"{store.storage.uri}/{run}")
    content = BestManifest(run=run, generation=1, f1=0.5, model=model)
    store.put(uri, content.encode())
    return uri


def test_all_stages_of_a_run_use_the_best_model_that_the_first_one_found(store: Store) -> None:
    root, mine = store.storage.uri, "default/second-00000002"
    uri = put_best(store, "generations/001/train/model")
    first = f"{root}/default/first-00000001/generations/001/train/model"
    assert pinned_model(uri, store, root, mine) == (first, None)
    put_best(store, "generations/002/train/model")  # another model is promoted
    assert resumed_model(uri, store)[0] != first
    assert pinned_model(uri, store, root, mine) == (first, None)
    # a third run continues from the baseline of the second one, which is that model
    measured = put(store, Stage.EVALUATE, 0, f"storage:{uri.removeprefix(root)}", run=mine)
    assert resumed_model(measured, store) == (first, None)
    # and a run that reads the address only now has the new one
    later = pinned_model(uri, store, root, "default/third-00000003")[0]
    assert later == f"{root}/default/first-00000001/generations/002/train/model"


def test_the_model_of_other_manifests_is_not_recorded(store: Store) -> None:
    root = store.storage.uri
    trained = put(store, Stage.TRAIN, 1, "hf://some/base")
    assert pinned_model(trained, store, root, "default/b-00000002") == resumed_model(trained, store)
    assert [info.uri for info in store.list(f"{root}/default/b-00000002")] == []


def test_a_damaged_record_is_named(store: Store) -> None:
    root, mine = store.storage.uri, "default/second-00000002"
    uri = put_best(store, "hf://owner/name")
    pinned_model(uri, store, root, mine)
    store.put(f"{root}/{mine}/resumed.json", b"{}")
    with pytest.raises(BadInput, match=r"resumed\.json is damaged"):
        pinned_model(uri, store, root, mine)
