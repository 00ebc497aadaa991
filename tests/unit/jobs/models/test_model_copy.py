"""A model is copied to a folder, to S3 and to the hub: whole, again, and in place of another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.s3_server import S3Server
from tests.support.writable_hub import WritableHub
from tests.unit.jobs.models.descriptions import described, score

from selfemo_api.contract import ENV_WORK
from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.description_file import encode_description, parse_description
from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.model_copy import copy_model
from selfemo_jobs.models.model_description import with_scores
from selfemo_jobs.models.model_folder import model_files, model_hashes
from selfemo_jobs.models.model_reference import ReferenceOptions, resolve_model
from selfemo_jobs.models.publish_target import check_replaceable, read_target
from selfemo_jobs.store import Store, open_store
from selfemo_jobs.store.folder import FileStore


class Killed(BaseException):
    """Stands in for SIGKILL: nothing is cleaned up by it."""


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "source"))


@pytest.fixture
def other(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose files have the same sizes."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StorageSpec(uri=tmp_path.as_uri()))


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Store]]:
    """A target that does not exist, and a store that reads and writes it."""
    if request.param == "file":
        storage = StorageSpec(uri=tmp_path.as_uri())
        yield f"{tmp_path.as_uri()}/my%20models/copy", open_store(storage)
        return
    server: S3Server = request.getfixturevalue("s3")
    storage = server.storage(tmp_path.name)
    yield f"{storage.uri}/copy", open_store(storage)


def files_at(store: Store, uri: str) -> dict[str, bytes]:
    return {info.uri.rpartition("/")[2]: store.get(info.uri) for info in store.list(uri)}


def describing(folder: Path, **changes: Any) -> ModelDescription:
    return described(weights_sha256=model_hashes(folder), **changes)


def test_a_copy_has_all_files_and_describes_itself(
    model: Path, place: tuple[str, Store], tmp_path: Path
) -> None:
    uri, store = place
    before = {p.name: p.read_bytes() for p in model.iterdir()}
    copied = copy_model(model, uri, described(weights_sha256={}), store=store)
    stored = files_at(store, uri)
    assert {n: b for n, b in stored.items() if n in before} == before
    assert set(stored) == {*before, "selfemo.json", "README.md"}
    assert (copied.files, copied.written) == (len(stored), len(stored))
    assert copied.size == sum(len(data) for data in stored.values())
    assert parse_description(stored["selfemo.json"], "x") == describing(model)
    assert {p.name: p.read_bytes() for p in model.iterdir()} == before, "the source is not changed"
    options = ReferenceOptions(storage=store.storage, cache=tmp_path / "cache")
    assert resolve_model(uri, options).description == describing(model)
    again = copy_model(model, uri, describing(model), store=store)
    assert again.written == 0 and again.files == copied.files


def test_names_of_files_are_kept_as_they_are(
    model: Path, place: tuple[str, Store], tmp_path: Path
) -> None:
    uri, store = place
    name = "training notes (1) é%20.txt"
    (model / name).write_text("notes")
    description = describing(model)
    assert copy_model(model, uri, description, store=store).written > 1
    content = read_target(uri, store)
    sizes = {path.name: path.stat().st_size for path in model_files(model)}
    assert name in sizes
    assert content.has(description, sizes)
    check_replaceable(uri, content, str(description.origin and description.origin.run))
    assert copy_model(model, uri, description, store=store).written == 0
    fetched = fetch_model(uri, None, store, tmp_path / "work")
    assert {p.name for p in model_files(fetched)} == sizes.keys()
    assert (fetched / name).read_text() == "notes"


def test_new_scores_replace_the_description_alone(model: Path, place: tuple[str, Store]) -> None:
    uri, store = place
    copy_model(model, uri, describing(model), store=store)
    evaluated = with_scores(describing(model), [score(f1=0.7)])
    assert copy_model(model, uri, evaluated, store=store).written == 2
    assert parse_description(store.get(f"{uri}/selfemo.json"), "x") == evaluated
    assert b"0.700" in store.get(f"{uri}/README.md")


def test_another_model_is_replaced_on_request_alone(
    model: Path, other: Path, place: tuple[str, Store]
) -> None:
    uri, store = place
    copy_model(other, uri, describing(other), store=store)
    shard = "model-00002-of-00002.safetensors"
    store.put(f"{uri}/{shard}", b"of no use")
    with pytest.raises(BadInput, match=f"contains other files .{shard}"):
        copy_model(model, uri, describing(model), store=store, overwrite=True)
    listed = described(weights_sha256={**model_hashes(other), shard: "0" * 64})
    store.put(f"{uri}/selfemo.json", encode_description(listed))
    with pytest.raises(BadInput, match=r"another model \(default/demo-0123abcd, generation 2\)"):
        copy_model(model, uri, describing(model), store=store)
    assert shard in files_at(store, uri)
    copy_model(model, uri, describing(model), store=store, overwrite=True)
    stored = files_at(store, uri)
    assert stored["model.safetensors"] == (model / "model.safetensors").read_bytes()
    assert shard not in stored


@pytest.mark.parametrize("files", [["notes.txt"], ["config.json", "data/table.json"]])
def test_other_files_are_never_removed(
    model: Path, place: tuple[str, Store], files: list[str]
) -> None:
    uri, store = place
    for name in files:
        store.put(f"{uri}/{name}", b"{}")
    for overwrite in (False, True):
        with pytest.raises(BadInput, match="contains other files"):
            copy_model(model, uri, describing(model), store=store, overwrite=overwrite)
    assert len(store.list(uri)) == len(files)


class KilledStore:
    """A store whose process is killed after some writes and removals."""

    def __init__(self, store: Store, writes: int) -> None:
        self._store, self.left = store, writes

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if name not in {"put", "upload", "remove"}:
            return value

        def counted(*arguments: Any) -> Any:
            if self.left == 0:
                raise Killed
            self.left -= 1
            return value(*arguments)

        return counted


@pytest.mark.parametrize("replaces", [False, True])
def test_a_copy_that_is_killed_at_any_write_is_completed_by_the_next(
    model: Path,
    other: Path,
    place: tuple[str, Store],
    replaces: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    uri, store = place
    options = ReferenceOptions(storage=store.storage, cache=tmp_path / "cache")
    description = describing(model)
    count = len(model_files(model)) + 2
    for writes in (0, 1, 3, count - 1, count):
        target = f"{uri}-{writes}"
        if replaces:
            copy_model(other, target, describing(other), store=store)
        killed = KilledStore(store, writes)
        with monkeypatch.context() as patch:
            if isinstance(store, FileStore):  # it is opened for the target
                for name in ("put", "upload"):
                    patch.setattr(FileStore, name, _counted(killed, getattr(FileStore, name)))
            try:
                copy_model(model, target, description, store=killed, overwrite=replaces)  # type: ignore[arg-type]
            except Killed:
                pass
            else:
                assert writes >= count
        # what is there is a whole model, nothing, or refused: never a mixture that is used
        try:
            resolved = resolve_model(target, options)
        except BadInput:
            pass
        else:
            hashes = model_hashes(resolved.folder)
            assert hashes == resolved.description.weights_sha256
        copy_model(model, target, description, store=store, overwrite=replaces)
        assert resolve_model(target, options).description == description


def _counted(killed: KilledStore, write: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        if killed.left == 0:
            raise Killed
        killed.left -= 1
        return write(*arguments)

    return counted


def test_a_new_folder_appears_as_a_whole(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(FileStore, "upload", killed)
        with pytest.raises(Killed):
            copy_model(model, (tmp_path / "copy").as_uri(), describing(model), store=store)
    assert not (tmp_path / "copy").exists()
    copy_model(model, (tmp_path / "copy").as_uri(), describing(model), store=store)
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".")} == set()


def test_places_that_cannot_be_written_are_explained(
    model: Path, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("hello")
    for target, message in (
        ((tmp_path / "file").as_uri(), "is a file: choose a folder"),
        (model.as_uri(), "is the folder of the model itself"),
        (f"{tmp_path.as_uri()}/file/below", "choose another location"),
    ):
        with pytest.raises(BadInput, match=message):
            copy_model(model, target, describing(model), store=store)


def test_a_folder_that_is_a_mount_point_is_written_in_place(
    model: Path, store: Store, tmp_path: Path
) -> None:
    """A volume of a pod cannot be replaced as a whole, so the folder itself stays."""
    folder = tmp_path / "volume"
    folder.mkdir()
    inode = folder.stat().st_ino
    copy_model(model, folder.as_uri(), describing(model), store=store)
    assert folder.stat().st_ino == inode and (folder / "README.md").is_file()


# the hub

TOKEN = "hf_aSecretThatNobodyMaySee0123456789"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[WritableHub]:
    with WritableHub(TOKEN) as server:
        yield server


def export(
    hub: WritableHub, tmp_path: Path, *arguments: str, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    """Run `selfemo export` with a hub, and check that nothing it prints has the token."""
    variables = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        ENV_WORK: str(tmp_path / "work"),
        "HF_HUB_VERBOSITY": "debug",
    }
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | variables
    if token is not None:
        env["HF_TOKEN"] = token
    process = subprocess.run(
        [sys.executable, "-m", "selfemo_jobs.use_commands", "export", *arguments, "--verbose"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert TOKEN not in process.stdout + process.stderr
    return process


def test_a_model_is_uploaded_to_the_hub_as_one_commit(
    hub: WritableHub, model: Path, other: Path, tmp_path: Path
) -> None:
    for folder in (model, other):
        description = describing(folder)
        copy_model(
            folder,
            (tmp_path / f"{folder.name}-described").as_uri(),
            description,
            store=open_store(StorageSpec(uri=tmp_path.as_uri())),
        )
    first, second = (str(tmp_path / f"{name}-described") for name in ("source", "other"))
    done = export(hub, tmp_path, first, "hf://me/emotions", "--private")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in model_files(model)} | {"selfemo.json", "README.md"}
    stored = hub.repositories["me/emotions"]
    assert set(stored) == {*names, ".gitattributes"}
    assert hub.visibility == {"me/emotions": "private"}
    assert hub.commits == [sorted(names)]
    assert b"/home/ann" not in stored["selfemo.json"] + stored["README.md"]
    # the same model again writes nothing, and another one is refused
    assert "already contains this model" in export(hub, tmp_path, first, "hf://me/emotions").stdout
    stored["LICENSE"] = b"of the owner"
    stored["model-00002-of-00002.safetensors"] = b"of an earlier model"
    refused = export(hub, tmp_path, second, "hf://me/emotions", "-o", "json")
    assert refused.returncode == 2 and len(hub.commits) == 1
    assert "another model" in json.loads(refused.stdout)["error"]
    done = export(hub, tmp_path, second, "hf://me/emotions", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert stored["model.safetensors"] == (other / "model.safetensors").read_bytes()
    assert stored["LICENSE"] == b"of the owner"
    assert "-model-00002-of-00002.safetensors" in hub.commits[-1]


@pytest.mark.parametrize(
    ("status", "token", "code", "message"),
    [
        (200, None, 2, "the Hub requires a token to write: set HF_TOKEN"),
        (200, "hf_wrong", 2, "HF_TOKEN"),
        (403, TOKEN, 2, "HF_TOKEN"),
        (503, TOKEN, 75, "run the same command again"),
    ],
)
def test_an_upload_that_the_hub_refuses_is_explained(
    hub: WritableHub,
    model: Path,
    tmp_path: Path,
    status: int,
    token: str | None,
    code: int,
    message: str,
) -> None:
    hub.status = status
    labels = ("--labels", "joy,anger")
    done = export(hub, tmp_path, str(model), "hf://me/emotions", *labels, token=token)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("selfemo export: hf://me/emotions") and message in last
    assert hub.repositories == {}
