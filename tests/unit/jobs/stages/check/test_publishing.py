"""The place of `publish` is looked at before a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.s3_server import S3Server
from tests.unit.jobs.models.descriptions import described
from tests.unit.jobs.stages.check.world import World

from selfemo_api.model_description import ModelDescription, Origin
from selfemo_jobs.models.description_file import encode_description
from selfemo_jobs.store import open_store


def model_of(run: str) -> ModelDescription:
    """Return the description of a model that a run made."""
    origin = described().origin
    assert origin is not None
    return described(origin=Origin(**{**origin.model_dump(), "run": run}))


@pytest.fixture(params=["file", "s3"])
def target(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> str:
    """The URI of a place that does not exist."""
    if request.param == "file":
        return f"{tmp_path.as_uri()}/new/place"
    server: S3Server = request.getfixturevalue("s3")
    storage = server.storage(f"{tmp_path.name}/store")
    world.spec["storage"] = storage.to_json()
    return storage.uri.removesuffix("store") + "place"


def test_a_new_place_is_fine_and_nothing_stays(world: World, target: str) -> None:
    world.spec["publish"] = target
    assert world.problems() == []
    config_store = open_store(world.config().spec.storage)
    assert config_store.list(target) == []
    assert not (world.folder / "new").exists()


@pytest.mark.parametrize(
    ("run", "is_fine"),
    [
        ("default/checked-36f0499c", True),
        ("default/checked-11111111", True),
        ("default/other-36f0499c", False),
        ("other/checked-36f0499c", False),
    ],
)
def test_a_model_of_another_evolution_is_not_replaced(
    world: World, target: str, run: str, is_fine: bool
) -> None:
    store = open_store(world.config().spec.storage)
    store.put(f"{target}/selfemo.json", encode_description(model_of(run)))
    store.put(f"{target}/model.safetensors", b"weights")
    world.spec["publish"] = target
    expected = (
        f"publish: {target} contains another model ({run}, generation 2): choose another "
        "destination, or remove that model"
    )
    assert world.problems() == ([] if is_fine else [expected])
    assert len(store.list(target)) == 2


@pytest.mark.parametrize("uri", ["hf://emotions", "hf://ann/emo/tions", "hf://ann/-"])
def test_a_wrong_name_on_the_hub_is_refused(world: World, uri: str) -> None:
    world.spec["publish"] = uri
    assert world.problems() == [f"publish: {uri} must be hf://owner/name"]


def test_the_hub_is_not_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    world.spec["publish"] = "hf://ann/emotions"
    assert world.problems() == []
