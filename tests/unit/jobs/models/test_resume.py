"""`spec.model.resumeFrom`: the model that another run's manifest is about."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selfemo_api.spec import StorageSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import fetch_model
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
