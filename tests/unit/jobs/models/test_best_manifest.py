from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.unit.jobs.models.descriptions import described

from selfemo_api.spec import StorageSpec
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import (
    BestManifest,
    best_model_uri,
    best_uri,
    is_best_manifest,
    parse_best_manifest,
    read_best_manifest,
    relative_model,
)
from selfemo_jobs.models.resume import resumed_model
from selfemo_jobs.runtime.manifest import Manifest
from selfemo_jobs.store import open_store
from selfemo_jobs.store.hashing import sha256

RUN = "default/demo-0123abcd"
#: Paths that lead out of a folder.
OUTSIDE = ["../other/model", "/etc/model", "a/../../../model", "%2e%2e/other", "a/.%2E/..%2fb"]


def best(model: str, **fields: object) -> BestManifest:
    return BestManifest.model_validate(
        {"run": RUN, "generation": 3, "f1": 0.5, "model": model, **fields}
    )


def test_it_is_read_as_it_was_written() -> None:
    content = best("generations/003/train/model", description=described())
    data = content.encode()
    assert parse_best_manifest(data, "x") == content
    assert data == parse_best_manifest(data, "x").encode()
    assert is_best_manifest(data)
    newer = json.dumps({**json.loads(data), "newer": {"a": 1}}).encode()
    assert parse_best_manifest(newer, "x") == content, "a rollback finds what a newer version wrote"
    for other in (b"{}", b"[]", b"no JSON", b'{"kind": "StageManifest"}'):
        assert not is_best_manifest(other)


def test_a_model_of_the_run_is_found_where_the_run_is(tmp_path: Path) -> None:
    store = open_store(StorageSpec(uri=tmp_path.as_uri()))
    run_uri = f"{tmp_path.as_uri()}/{RUN}"
    model = f"{run_uri}/generations/003/train/model"
    content = best(relative_model(run_uri, model))
    assert content.model == "generations/003/train/model"
    store.put(best_uri(run_uri), content.encode())
    assert resumed_model(best_uri(run_uri), store) == (model, None)
    moved = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / RUN, moved)
    uri = best_uri(moved.as_uri())
    assert resumed_model(uri, store)[0] == f"{moved.as_uri()}/generations/003/train/model"
    assert read_best_manifest(store, uri) == (content, sha256(content.encode()))


def test_a_model_of_the_hub_keeps_its_revision(tmp_path: Path) -> None:
    store = open_store(StorageSpec(uri=tmp_path.as_uri()))
    uri = best_uri(f"{tmp_path.as_uri()}/{RUN}")
    store.put(uri, best("hf://owner/name", revision="abc").encode())
    assert resumed_model(uri, store) == ("hf://owner/name", "abc")


@pytest.mark.parametrize("model", OUTSIDE)
def test_a_model_outside_the_run_is_refused(model: str) -> None:
    with pytest.raises(BadInput, match="points outside s3://bucket/run"):
        best_model_uri(best_uri("s3://bucket/run"), best(model))


@pytest.mark.parametrize("model", OUTSIDE)
def test_a_model_outside_the_folder_of_its_stage_is_refused(model: str, tmp_path: Path) -> None:
    store = open_store(StorageSpec(uri=tmp_path.as_uri()))
    manifest = Manifest(
        run=RUN,
        stage=Stage.TRAIN,
        generation=1,
        seed=1,
        config_sha256="0" * 64,
        config={},
        parts=[],
        model=model,
    )
    uri = f"{tmp_path.as_uri()}/{RUN}/generations/001/train/manifest.json"
    store.put(uri, manifest.encode())
    with pytest.raises(BadInput, match=r"points outside .*/generations/001/train$"):
        resumed_model(uri, store)


def test_a_file_that_is_not_a_best_manifest_is_named(tmp_path: Path) -> None:
    store = open_store(StorageSpec(uri=tmp_path.as_uri()))
    uri = best_uri(tmp_path.as_uri())
    with pytest.raises(BadInput, match=r"best/manifest\.json does not exist: the run has no best"):
        read_best_manifest(store, uri)
    with pytest.raises(BadInput, match="that run has no best model yet"):
        resumed_model(uri, store)
    good = json.loads(best("generations/001/train/model").encode())
    for change, message in (({"f1": "x"}, "f1"), ({"apiVersion": "selfemo.dev/v9"}, "v1alpha1")):
        store.put(uri, json.dumps({**good, **change}).encode())
        with pytest.raises(BadInput, match=message):
            read_best_manifest(store, uri)
    alone = f"{tmp_path.as_uri()}/manifest.json"
    store.put(alone, json.dumps(good).encode())
    with pytest.raises(BadInput, match="copied without its run"):
        resumed_model(alone, store)
