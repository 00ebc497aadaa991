from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.s3_server import S3Server

from selfemo_api.spec import StorageSpec
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, DamagedFiles, Unavailable
from selfemo_jobs.models.fetch import fetch_model, load_model, load_tokenizer
from selfemo_jobs.models.model_folder import check_model_folder, is_model_file, model_hashes
from selfemo_jobs.models.model_weights import FolderFiles, read_tensors
from selfemo_jobs.models.run_models import parse_run_model
from selfemo_jobs.runtime.manifest import Manifest, Part
from selfemo_jobs.store import Store, join, open_store
from selfemo_jobs.store.hashing import file_sha256, sha256


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_model, tmp_path / "stage" / "model"))


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(StorageSpec(uri=f"file://{tmp_path}/store"))


def put_manifest(store: Store, uri: str, model: Path) -> None:
    parts = [
        Part(path=f"model/{p.name}", sha256=file_sha256(p), size=p.stat().st_size)
        for p in sorted(model.iterdir())
    ]
    manifest = Manifest(
        run="default/demo-1",
        stage=Stage.TRAIN,
        generation=1,
        seed=1,
        config_sha256="0" * 64,
        config={},
        parts=parts,
        model="model",
    )
    store.put(join(uri, "manifest.json"), manifest.encode())


def upload(store: Store, model: Path, uri: str) -> None:
    for path in model.iterdir():
        store.upload(path, join(uri, "model", path.name))


def test_local_model_is_used_in_place(
    model: Path, local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFEMO_DATA", f"models={model.parent}")
    assert fetch_model(f"file://{model}", None, local, tmp_path / "work") == model
    assert fetch_model("data://models/model", None, local, tmp_path / "work") == model
    assert not (tmp_path / "work").exists()


def _remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def _add(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text("{}")

    return change


def _rename_to_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1000)


def _cut_header(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 20)


def _pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n" * 3)


def _lose_a_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shutil.rmtree, "does not exist"),
        (_remove("config.json"), r"contains no config\.json: it is not a model"),
        (_adapter, "it is an adapter"),
        (_add("adapter_config.json"), r"contains a model and an adapter \(adapter_config\.json\)"),
        (
            _add("adapter_model.safetensors"),
            r"contains a model and an adapter \(adapter_model\.safet",
        ),
        (_add("adapter_model.bin"), r"contains a model and an adapter \(adapter_model\.bin\)"),
        (_remove("model.safetensors"), r"contains no \*\.safetensors$"),
        (_rename_to_pickle, r"it contains pytorch_model\.bin, but only safetensors is supported"),
        (_cut, r"model\.safetensors is an unfinished download: \d+ of \d+ bytes"),
        (_cut_header, "truncated"),
        (_pointer, "Git LFS pointer"),
        (_lose_a_shard, r"model-00002-of-00002\.safetensors is missing \(1 of 2 shards\)"),
        (
            lambda folder: (folder / "x.incomplete").touch(),
            r"unfinished download \(it contains x\.incomplete",
        ),
    ],
)
def test_folder_without_a_whole_model_is_refused(
    model: Path, local: Store, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    change(model)
    with pytest.raises(BadInput, match=said) as caught:
        fetch_model(f"file://{model}", None, local, tmp_path / "work")
    assert str(model) in str(caught.value)


def test_folders_with_names_of_files_do_not_belong_to_a_model(model: Path) -> None:
    before = model_hashes(model)
    for name in ("tokenizer", "x.json"):
        (model / name).mkdir()
    check_model_folder(model, f"file://{model}")
    assert model_hashes(model) == before


def test_a_broken_link_is_named(model: Path, local: Store, tmp_path: Path) -> None:
    (model / "tokenizer.model").symlink_to(tmp_path / "blobs" / "0123")
    with pytest.raises(BadInput, match=r"tokenizer\.model is a link to a file that does not exist"):
        fetch_model(f"file://{model}", None, local, tmp_path / "work")


def test_temporary_file_of_a_killed_attempt_is_ignored(
    model: Path, local: Store, tmp_path: Path
) -> None:
    put_manifest(local, f"file://{model.parent}", model)
    (model / ".selfemo-3e51a366764e713e.tmp").write_bytes(b"half")
    assert fetch_model(f"file://{model}", None, local, tmp_path / "work") == model


def test_file_in_place_of_a_folder_is_refused(model: Path, local: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a file"):
        fetch_model(f"file://{model}/config.json", None, local, tmp_path)


def test_trained_model_is_compared_with_its_manifest(
    model: Path, local: Store, tmp_path: Path
) -> None:
    put_manifest(local, f"file://{model.parent}", model)
    uri = f"file://{model}"
    assert fetch_model(uri, None, local, tmp_path) == model
    with (model / "model.safetensors").open("r+b") as file:  # same length, one byte other
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(BadInput, match=r"model\.safetensors does not match the manifest"):
        fetch_model(uri, None, local, tmp_path)
    (model / "generation_config.json").unlink()
    with pytest.raises(BadInput, match=r"generation_config\.json is missing, although"):
        fetch_model(uri, None, local, tmp_path)


def test_other_files_called_manifest_are_left_alone(
    model: Path, local: Store, tmp_path: Path
) -> None:
    for content in ("{}", "[]", "not JSON", '{"kind": "Other"}'):
        (model.parent / "manifest.json").write_text(content)
        assert fetch_model(f"file://{model}", None, local, tmp_path) == model


def test_s3_model_is_copied_checked_and_not_copied_again(
    s3: S3Server, model: Path, tmp_path: Path
) -> None:
    spec = s3.storage(tmp_path.name)
    store = open_store(spec)
    upload(store, model, spec.uri)
    store.put(join(spec.uri, "model", "optimizer.bin"), b"not a model file")
    store.put(join(spec.uri, "model", "onnx", "config.json"), b"not a model file")
    put_manifest(store, spec.uri, model)
    uri, work = join(spec.uri, "model"), tmp_path / "work"
    folder = fetch_model(uri, None, store, work)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in model.iterdir()
    }
    files = {p.name: p.stat().st_ctime_ns for p in folder.iterdir()}
    # a killed attempt: one file is missing, one is of another model, one is spoilt
    (folder / "config.json").unlink()
    (folder / "old.safetensors").touch()
    (folder / "tokenizer.json").write_bytes(b"?" * (model / "tokenizer.json").stat().st_size)
    assert fetch_model(uri, None, store, work) == folder
    again = {p.name: p.stat().st_ctime_ns for p in folder.iterdir()}
    assert file_sha256(folder / "tokenizer.json") == file_sha256(model / "tokenizer.json")
    assert {n for n in files if files[n] != again[n]} == {"config.json", "tokenizer.json"}
    assert set(again) == set(files)


def test_a_model_without_hashes_that_was_replaced_is_copied_again(
    s3: S3Server, model: Path, tmp_path: Path
) -> None:
    spec = s3.storage(tmp_path.name)
    store = open_store(spec)
    upload(store, model, spec.uri)
    uri, work = join(spec.uri, "model"), tmp_path / "work"
    folder = fetch_model(uri, None, store, work)
    weights = folder / "model.safetensors"
    files = weights.stat().st_ino
    assert fetch_model(uri, None, store, work) == folder
    assert weights.stat().st_ino == files  # it was not copied again
    # as of a model that was uploaded a day ago: servers have times of whole seconds
    os.utime(weights, (1.7e9, 1.7e9))
    other = weights.read_bytes()[:-4] + bytes(4)
    store.put(join(uri, weights.name), other)
    assert fetch_model(uri, None, store, work) == folder
    assert weights.read_bytes() == other


class Replaced:
    """A store in which something happens after the description of a model was copied."""

    def __init__(self, store: Store, change: Callable[[], object]) -> None:
        self._store, self._change = store, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def download(self, uri: str, path: Path) -> None:
        self._store.download(uri, path)
        if uri.endswith("/config.json"):
            self._change()


@pytest.mark.parametrize("change", ["other weights", "a file less", "a file more"])
def test_a_model_that_is_replaced_while_it_is_copied_may_be_whole_later(
    change: str, s3: S3Server, model: Path, tmp_path: Path
) -> None:
    spec = s3.storage(tmp_path.name)
    store, uri = open_store(spec), join(spec.uri, "model")
    upload(store, model, spec.uri)
    changes: dict[str, Callable[[], object]] = {
        "other weights": lambda: store.put(join(uri, "model.safetensors"), b"longer" * 100_000),
        "a file less": lambda: store.delete(join(uri, "tokenizer.json")),
        "a file more": lambda: store.put(join(uri, "model-2.safetensors"), b"second shard"),
    }
    replaced: Any = Replaced(store, changes[change])
    with pytest.raises(Unavailable, match="model changed while it was copied"):
        fetch_model(uri, None, replaced, tmp_path / "work")


def test_a_model_with_a_manifest_that_is_removed_after_its_copy_is_whole(
    s3: S3Server, model: Path, tmp_path: Path
) -> None:
    spec = s3.storage(tmp_path.name)
    store, uri = open_store(spec), join(spec.uri, "model")
    upload(store, model, spec.uri)
    put_manifest(store, spec.uri, model)
    first = sorted(path.name for path in model.iterdir())[0]
    replaced: Any = Replaced(store, lambda: store.delete(join(uri, first)))
    folder = fetch_model(uri, None, replaced, tmp_path / "work")
    assert model_hashes(folder) == model_hashes(model)


def test_the_description_of_an_earlier_model_does_not_count(
    s3: S3Server, model: Path, tmp_path: Path
) -> None:
    spec = s3.storage(tmp_path.name)
    store, uri = open_store(spec), join(spec.uri, "model")
    upload(store, model, spec.uri)
    store.put(
        join(uri, "selfemo.json"), json.dumps({"weightsSha256": model_hashes(model)}).encode()
    )
    folder = fetch_model(uri, None, store, tmp_path / "work")
    weights = folder / "model.safetensors"
    # as of a model that was uploaded a day ago: servers have times of whole seconds
    os.utime(weights, (1.7e9, 1.7e9))
    other = weights.read_bytes()[:-4] + bytes(4)
    store.put(join(uri, weights.name), other)
    store.delete(join(uri, "selfemo.json"))
    assert fetch_model(uri, None, store, tmp_path / "work") == folder
    assert weights.read_bytes() == other
    assert not (folder / "selfemo.json").exists()


def test_a_file_that_another_process_writes_to_the_same_folder_stays(
    model: Path, s3: S3Server, tmp_path: Path
) -> None:
    storage = s3.storage(tmp_path.name)
    store = open_store(storage)
    upload(store, model, storage.uri)
    uri = f"{storage.uri}/model"
    folder = fetch_model(uri, None, store, tmp_path / "work")
    written, old = folder / ".selfemo-0123456789abcdef.tmp", folder / "old.json"
    written.touch()
    old.touch()
    assert fetch_model(uri, None, store, tmp_path / "work") == folder
    assert written.exists()
    assert not old.exists()


class DeniedBeside:
    """A store with the right to read one folder alone."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, uri: str) -> bytes:
        if not uri.startswith(self._folder):
            raise BadInput(f"{uri}: AccessDenied")
        return self._store.get(uri)


@pytest.mark.parametrize("folder", ["models/llama", "default/demo-1/generations/001/train/model-1"])
def test_the_right_to_read_a_model_is_enough(
    folder: str, model: Path, s3: S3Server, tmp_path: Path
) -> None:
    storage = s3.storage(tmp_path.name)
    store, uri = open_store(storage), f"{storage.uri}/{folder}"
    for path in model.iterdir():
        store.upload(path, join(uri, path.name))
    denied: Any = DeniedBeside(store, f"{uri}/")
    if parse_run_model(uri) is None:
        fetched = fetch_model(uri, None, denied, tmp_path / "work")
        assert model_hashes(fetched) == model_hashes(model)
        return
    with pytest.raises(BadInput, match=r"manifest\.json: AccessDenied"):  # its manifest is needed
        fetch_model(uri, None, denied, tmp_path / "work")


def test_s3_model_that_differs_from_its_manifest_is_refused(
    s3: S3Server, model: Path, tmp_path: Path
) -> None:
    spec = s3.storage(tmp_path.name)
    store = open_store(spec)
    upload(store, model, spec.uri)
    put_manifest(store, spec.uri, model)
    store.put(join(spec.uri, "model", "config.json"), b"{}")
    with pytest.raises(BadInput, match=r"config\.json does not match the manifest"):
        fetch_model(join(spec.uri, "model"), None, store, tmp_path)


def test_missing_s3_model_is_named(s3: S3Server, tmp_path: Path) -> None:
    store = open_store(s3.storage(tmp_path.name))
    with pytest.raises(BadInput, match="s3://selfemo/none does not exist"):
        fetch_model("s3://selfemo/none", None, store, tmp_path)


def test_hub_that_cannot_be_reached_is_unavailable(local: Store, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from selfemo_api.spec import StorageSpec\n"
        "from selfemo_jobs.store import open_store; from selfemo_jobs.models.fetch import *\n"
        "from selfemo_jobs.errors import *\n"
        "store = open_store(StorageSpec(uri='file:///nowhere'))\n"
        "try: fetch_model('hf://owner/name', 'main', store, Path('.'))\n"
        "except Unavailable as e: print(e); sys.exit(75)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 75, found.stderr
    assert "hf://owner/name at revision main: the Hub could not be reached" in found.stdout


@pytest.mark.parametrize("uri", ["hf://a/b/c", "hf://a b", "hf://-/-"])
def test_hub_name_of_another_form_is_refused(local: Store, tmp_path: Path, uri: str) -> None:
    with pytest.raises(BadInput, match="must be hf://owner/name"):
        fetch_model(uri, None, local, tmp_path)


def test_only_files_that_need_no_unpickling_are_taken() -> None:
    for name in ("model.safetensors", "config.json", "merges.txt", "tokenizer.model", "a.jinja"):
        assert is_model_file(name)
    for name in ("pytorch_model.bin", "modeling_x.py", "x.pkl", "sub/config.json", "a.pth"):
        assert not is_model_file(name)


def test_model_and_tokenizer_load(model: Path) -> None:
    import torch

    loaded = load_model(model, torch.float32)
    assert not loaded.training
    assert loaded.dtype == torch.float32
    assert load_tokenizer(model).pad_token_id is not None


def test_tokenizer_without_padding_token_pads_with_its_end(model: Path) -> None:
    path = model / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    tokenizer = load_tokenizer(model)
    assert tokenizer.pad_token == tokenizer.eos_token


def _configure(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is not JSON"),
        (lambda f: (f / "config.json").write_text("{}"), "has no `model_type`"),
        (_configure(model_type="no-such-kind"), "no-such-kind"),
        (_configure(model_type="bert"), "weights"),
        (_configure(hidden_size="wide"), "hidden_size"),
        (_configure(hidden_size=64), "do not fit"),
        (_configure(num_hidden_layers=5, layer_types=None), "weights lack model.layers.4"),
        (
            _configure(model_type="own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"}),
            "own",
        ),
    ],
)
def test_broken_configuration_is_explained(
    model: Path, change: Callable[[Path], None], said: str
) -> None:
    import torch

    change(model)
    with pytest.raises(BadInput, match=said) as caught:
        load_model(model, torch.float32)
    assert str(model) in str(caught.value)


@pytest.mark.parametrize("write", ["save_model", "write_model", "save_checkpoint"])
def test_a_full_disk_while_weights_are_written_is_bad_input(
    write: str, model: Path, tmp_path: Path
) -> None:
    calls = {
        "save_model": "save_model(load_model(model, torch.float32), load_tokenizer(model), new)",
        "write_model": "loaded = load_model(model, torch.float32)\n"
        "    write_model(loaded, loaded.state_dict(), model, new)",
        "save_checkpoint": "save_checkpoint(new, 1, WarmStartState({'a': torch.zeros(9999)}, {}))",
    }
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from selfemo_jobs.errors import BadInput\n"
        "from selfemo_jobs.models.fetch import load_model, load_tokenizer\n"
        "from selfemo_jobs.models.model_export import write_model\n"
        "from selfemo_jobs.models.model_folder import save_model\n"
        "from selfemo_jobs.stages.warmstart.checkpoints import WarmStartState, save_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        f"model, new = Path({str(model)!r}), Path({str(tmp_path)!r}) / 'new'\n"
        f"try:\n    {calls[write]}\n"
        "except BadInput as error: print(error); sys.exit(2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"{tmp_path}/new" in done.stdout
    assert "file too large: free space" in done.stdout


@pytest.mark.parametrize("content", ["{", "{}", '{"version": "1.0", "model": {"type": "BPE"}}'])
def test_broken_tokenizer_is_explained(model: Path, content: str) -> None:
    (model / "tokenizer.json").write_text(content)
    with pytest.raises(BadInput, match=str(model)):
        load_tokenizer(model)


def test_folder_without_tokenizer_is_refused(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(BadInput, match="contains no tokenizer"):
        load_tokenizer(model)
    assert Unavailable.exit_code == 75


@pytest.mark.parametrize("kind", ["file", "s3"])
@pytest.mark.parametrize("damage", ["none of it", "a file less", "other bytes", "no manifest"])
def test_damage_of_a_model_that_a_stage_trained_names_its_manifest(
    kind: str, damage: str, model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The stage can make the model again. No program can do that for the model of a person."""
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3")
        spec = server.storage(sha256(str(tmp_path).encode())[:12])
    else:
        spec = StorageSpec(uri=f"file://{tmp_path}/store")
    store = open_store(spec)
    stage = join(spec.uri, "default/demo-00000001/generations/002/train")
    upload(store, model, stage)
    put_manifest(store, stage, model)
    uri = join(stage, "model")
    fetch_model(uri, None, store, tmp_path / "work")
    if damage == "none of it":
        store.remove(uri)
    elif damage == "a file less":
        store.delete(join(uri, "config.json"))
    elif damage == "other bytes":
        store.put(join(uri, "model.safetensors"), b"other")
    else:
        store.remove(stage)
    with pytest.raises(DamagedFiles) as caught:
        fetch_model(uri, None, store, tmp_path / "work")
    assert caught.value.manifest_uri == join(stage, "manifest.json")
    with pytest.raises(BadInput) as plain:
        fetch_model(join(spec.uri, "mine"), None, store, tmp_path / "work")
    assert not isinstance(plain.value, DamagedFiles)


def test_weights_in_the_format_of_mistral_are_not_counted_twice(model: Path) -> None:
    before = read_tensors(FolderFiles(model), "model"), model_hashes(model)
    weights = model / "model.safetensors"
    shutil.copyfile(weights, model / "consolidated.safetensors")
    (model / "consolidated.safetensors.index.json").write_text("{}")
    assert (read_tensors(FolderFiles(model), "model"), model_hashes(model)) == before
    weights.unlink()
    with pytest.raises(BadInput, match=r"consolidated\.safetensors is in Mistral's own format"):
        check_model_folder(model, f"file://{model}")


@pytest.mark.parametrize("closed", ["model.safetensors", "."])
def test_a_model_that_may_not_be_read_is_bad_input(closed: str, model: Path) -> None:
    (model / closed).chmod(0o300 if closed == "." else 0o200)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from selfemo_jobs.errors import BadInput\n"
        "from selfemo_jobs.models.model_folder import check_model_folder\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: check_model_folder(Path('.'), 'file:///model')\n"
        "except BadInput as error: print(error); sys.exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=model, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert ": Permission denied: grant this user (" in done.stdout
