"""Each way to name a model, resolved to its folder and its description."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.support.s3_server import S3Server
from tests.unit.jobs.models.descriptions import LABELS, config, described, score, spec

from selfemo_api.contract import ENV_WORK
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.local_runs import local_uid
from selfemo_api.model_description import ModelDescription
from selfemo_api.recipes import with_overrides
from selfemo_api.spec import Context, StorageSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.status import Best, EvolutionStatus, GenerationRecord, Outcome
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import BestManifest, best_uri, relative_model
from selfemo_jobs.models.description_file import encode_description
from selfemo_jobs.models.model_description import with_scores
from selfemo_jobs.models.model_folder import model_files, model_hashes
from selfemo_jobs.models.model_reference import (
    ReferenceOptions,
    cache_folder,
    locate_model,
    resolve_model,
)
from selfemo_jobs.runtime.fingerprint import config_fingerprint
from selfemo_jobs.runtime.manifest import Manifest
from selfemo_jobs.stages.evaluate.stage import RELEVANT
from selfemo_jobs.store import Store, join, open_store
from selfemo_operator.cli.run_options import request_of

NAME = "demo"
RUN = f"default/{NAME}-{local_uid('default', NAME)}"
Put = Callable[..., str]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(StorageSpec(uri=f"file://{tmp_path}/store"))


def put_model(store: Store, uri: str, model: Path, description: ModelDescription | None) -> str:
    for path in model_files(model):
        store.upload(path, join(uri, path.name))
    if description is not None:
        store.put(join(uri, "selfemo.json"), encode_description(description))
    return uri


def generation_of(store: Store, model: Path, number: int, **fields: object) -> ModelDescription:
    """Write the train and the evaluate stage of a generation, and return its description."""
    description = described(weights_sha256=model_hashes(model), **fields)
    folder = join(store.storage.uri, RUN)
    train = join(folder, stage_prefix(number, Stage.TRAIN))
    put_model(store, join(train, "model"), model, description)
    common = {"run": RUN, "generation": number, "seed": 1, "config_sha256": "0" * 64}
    trained = Manifest(stage=Stage.TRAIN, config={}, model="model", **common)
    store.put(join(train, "manifest.json"), trained.encode())
    evaluation = config(number, Stage.EVALUATE, storage=store.storage.to_json())
    evaluation = evaluation.model_copy(update={"policy_uri": join(train, "model")})
    evaluated = Manifest(
        stage=Stage.EVALUATE,
        config=config_fingerprint(evaluation, RELEVANT),
        scores=[score(f1=number / 10)],
        **common,
    )
    place = join(folder, stage_prefix(number, Stage.EVALUATE), "manifest.json")
    store.put(place, evaluated.encode())
    return description


def put_best(store: Store, number: int) -> str:
    folder = join(store.storage.uri, RUN)
    model = join(folder, stage_prefix(number, Stage.TRAIN), "model")
    content = BestManifest(run=RUN, generation=number, f1=0.5, model=relative_model(folder, model))
    store.put(best_uri(folder), content.encode())
    return best_uri(folder)


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def test_a_folder_by_path_or_uri(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "models" / "mine"))
    description = described(weights_sha256=model_hashes(folder))
    (folder / "selfemo.json").write_bytes(encode_description(description))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFEMO_DATA", f"models={tmp_path}/models")
    monkeypatch.setenv("HOME", str(tmp_path))
    for reference in (
        str(folder),
        "models/mine",
        "./models/mine/",
        "~/models/mine",
        folder.as_uri(),
        "file://./models/mine",
        "data://models/mine",
    ):
        resolved = resolve_model(reference)
        assert resolved.folder == folder, reference
        assert resolved.description == description


def test_manifests_and_the_folder_of_a_run(tiny_model: Path, store: Store) -> None:
    first, second = generation_of(store, tiny_model, 1), generation_of(store, tiny_model, 2)
    best = put_best(store, 1)
    root = join(store.storage.uri, RUN)
    folders = {n: local(join(root, stage_prefix(n, Stage.TRAIN), "model")) for n in (1, 2)}
    for reference, number, description in (
        (best, 1, first),
        (root, 1, first),
        (str(local(root)), 1, first),
        (join(root, stage_prefix(2, Stage.TRAIN), "manifest.json"), 2, second),
        (join(root, stage_prefix(2, Stage.TRAIN)), 2, second),
    ):
        resolved = resolve_model(reference)
        assert resolved.folder == folders[number], reference
        assert resolved.description == description
    evaluated = resolve_model(join(root, stage_prefix(2, Stage.EVALUATE), "manifest.json"))
    assert evaluated.folder == folders[2]
    assert evaluated.description == with_scores(second, [score(f1=0.2)])


def test_a_run_that_is_copied_elsewhere_still_has_its_best_model(
    tiny_model: Path, store: Store, tmp_path: Path
) -> None:
    description = generation_of(store, tiny_model, 1)
    put_best(store, 1)
    moved = tmp_path / "elsewhere"
    local(join(store.storage.uri, RUN)).rename(moved)
    resolved = resolve_model(str(moved))
    assert resolved.folder == moved / stage_prefix(1, Stage.TRAIN) / "model"
    assert resolved.description == description
    alone = tmp_path / "alone"
    shutil.copytree(resolved.folder, alone)
    shutil.rmtree(moved)
    assert resolve_model(str(alone)) == (alone, description)


def evolution_file(store: Store, folder: Path) -> Path:
    document = {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": NAME},
        "spec": {
            "model": {"uri": "hf://owner/base", "prompts": "compact-v1"},
            "dataset": {
                "labels": LABELS,
                "sources": [
                    {"name": "train", "use": "Labeled", "uri": "file:///train.jsonl"},
                    {"name": "dev", "use": "Evaluation", "uri": "file:///dev.jsonl"},
                ],
            },
            "storage": {"uri": store.storage.uri},
        },
    }
    file = folder / "demo.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def put_state(file: Path, state: Path, best: Best, scores: list[GenerationRecord]) -> None:
    evolution = EmotionEvolution.model_validate(yaml.safe_load(file.read_text()))
    metadata = evolution.metadata.model_copy(update={"uid": local_uid("default", NAME)})
    status = EvolutionStatus(best=best, history=scores)
    stored = evolution.model_copy(update={"metadata": metadata, "status": status})
    folder = state / "default" / NAME
    folder.mkdir(parents=True)
    (folder / "evolution.json").write_text(stored.model_dump_json(by_alias=True))


def test_an_evolution_by_its_state_then_by_its_storage(
    tiny_model: Path, store: Store, tmp_path: Path
) -> None:
    for number in (1, 2):
        generation_of(store, tiny_model, number)
    put_best(store, 1)
    file = evolution_file(store, tmp_path)
    folder = local(join(store.storage.uri, RUN))
    options = ReferenceOptions(state=tmp_path / "state")
    assert resolve_model(str(file), options).folder == folder / "generations/001/train/model"
    record = GenerationRecord(
        generation=2, outcome=Outcome.PROMOTED, scores=[score(f1=0.2)], model_uri="x"
    )
    model = f"{folder.as_uri()}/generations/002/train/model"
    put_state(file, options.state, Best(generation=2, f1=0.2, model_uri=model), [record])
    resolved = resolve_model(str(file), options)
    assert resolved.folder == folder / "generations/002/train/model"
    assert [s.weighted_f1 for s in resolved.description.scores] == [0.2]
    first = ReferenceOptions(state=options.state, generation=1)
    assert resolve_model(str(file), first).folder == folder / "generations/001/train/model"
    with pytest.raises(BadInput, match="generation 7 has no evaluation"):
        resolve_model(str(file), ReferenceOptions(state=options.state, generation=7))


def test_a_run_of_a_cluster_is_found_by_its_name(
    tiny_model: Path, store: Store, tmp_path: Path
) -> None:
    file = evolution_file(store, tmp_path)
    with pytest.raises(BadInput, match="its run has no best model yet") as error:
        resolve_model(str(file))
    assert "\n" not in str(error.value)
    generation_of(store, tiny_model, 1)
    put_best(store, 1)
    root = local(store.storage.uri) / "default"
    (root / RUN.rpartition("/")[2]).rename(root / f"{NAME}-89abcdef")
    resolved = resolve_model(str(file))
    assert resolved.folder == root / f"{NAME}-89abcdef/generations/001/train/model"
    shutil.copytree(root / f"{NAME}-89abcdef", root / f"{NAME}-11111111")
    shutil.copytree(root / f"{NAME}-89abcdef", root / f"{NAME}-other-11111111")
    with pytest.raises(
        BadInput, match=f"several runs with this name .{NAME}-11111111, {NAME}-89ab"
    ):
        resolve_model(str(file))


def test_the_uid_of_a_local_run_is_that_of_the_runner(tmp_path: Path) -> None:
    document = {
        "apiVersion": "selfemo.dev/v1alpha1",
        "kind": "EmotionEvolution",
        "metadata": {"name": "some-name", "namespace": "there"},
        "spec": with_overrides({**spec().to_json(), "overrides": {}}),
    }
    file = tmp_path / "some.yaml"
    file.write_text(yaml.safe_dump(document))
    assert local_uid("there", "some-name") == request_of(file, {}, {}, tmp_path).uid


def test_a_model_without_a_description_is_used_as_its_run_used_it(
    tiny_model: Path, store: Store, tmp_path: Path
) -> None:
    """As of runs that were made before there were descriptions."""
    generation_of(store, tiny_model, 1)
    root = join(store.storage.uri, RUN)
    folder = local(join(root, stage_prefix(1, Stage.TRAIN), "model"))
    (folder / "selfemo.json").unlink()
    resolved = resolve_model(join(root, stage_prefix(1, Stage.EVALUATE), "manifest.json"))
    expected = described()
    assert resolved.description.labels == LABELS
    assert resolved.description.context == expected.context
    assert resolved.description.prompts == expected.prompts
    assert resolved.description.decoding.engine_args == {"dtype": "bfloat16"}
    assert resolved.description.decoding.batch_size == 5
    assert [s.weighted_f1 for s in resolved.description.scores] == [0.1]
    options = ReferenceOptions(generation=1)
    by_file = resolve_model(str(evolution_file(store, tmp_path)), options).description
    assert by_file.origin is not None and by_file.origin.generation == 1
    assert by_file.labels == LABELS


def test_the_best_manifest_describes_a_model_that_the_run_did_not_make(
    tiny_model: Path, store: Store
) -> None:
    content = BestManifest(
        run=RUN,
        generation=0,
        f1=0.3,
        model=tiny_model.as_uri(),
        description=described(weights_sha256={}, origin=None),
    )
    uri = best_uri(join(store.storage.uri, RUN))
    store.put(uri, content.encode())
    resolved = resolve_model(uri)
    assert resolved.folder == tiny_model
    assert resolved.description == content.description
    assert not (tiny_model / "selfemo.json").exists()


def test_a_foreign_model_needs_labels(tiny_model: Path) -> None:
    with pytest.raises(BadInput, match=r"has no selfemo\.json.*--labels neutral,joy,anger"):
        resolve_model(str(tiny_model))
    with pytest.raises(BadInput, match="two or more"):
        resolve_model(str(tiny_model), ReferenceOptions(labels=["joy"]))
    with pytest.raises(BadInput, match="`joy` and `Joy` are the same label"):
        resolve_model(str(tiny_model), ReferenceOptions(labels=["joy", "Joy"]))
    with pytest.raises(BadInput, match="`a,b` cannot be a label"):
        resolve_model(str(tiny_model), ReferenceOptions(labels=["joy", "a,b"]))
    options = ReferenceOptions(labels=["a", "b"], context=Context(past=1))
    description = resolve_model(str(tiny_model), options).description
    assert description.labels == ["a", "b"] and description.context.past == 1
    assert description.prompts.name == ("chat-v1" if _chats(tiny_model) else "compact-v1")
    chosen = ReferenceOptions(labels=["a", "b"], prompts="chat-zh-v1")
    assert resolve_model(str(tiny_model), chosen).description.prompts.name == "chat-zh-v1"


def test_prompts_of_a_foreign_model_fit_its_positions(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    options = ReferenceOptions(labels=["joy", "x" * 60], prompts="compact-v1")

    def tokens(positions: int) -> int:
        changed = {**config, "max_position_embeddings": positions}
        (folder / "config.json").write_text(json.dumps(changed))
        return resolve_model(str(folder), options).description.prompts.max_prompt_tokens

    assert tokens(2048) == 1024
    assert tokens(1024) == 1024 - 63  # the label, with a blank, a line break and an end
    with pytest.raises(BadInput, match="supports 64 tokens, too few for a prompt"):
        tokens(64)


def _chats(folder: Path) -> bool:
    from selfemo_jobs.models.fetch import load_tokenizer

    return bool(load_tokenizer(folder).chat_template)


def test_other_labels_than_those_of_the_model_are_refused(tiny_model: Path, store: Store) -> None:
    generation_of(store, tiny_model, 1)
    put_best(store, 1)
    root = join(store.storage.uri, RUN)
    assert resolve_model(root, ReferenceOptions(labels=LABELS)).description.labels == LABELS
    with pytest.raises(BadInput, match=r"has its own labels \(neutral, joy, anger\)"):
        resolve_model(root, ReferenceOptions(labels=["x", "y"]))


def test_changed_weights_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    description = described(weights_sha256=model_hashes(folder))
    (folder / "selfemo.json").write_bytes(encode_description(description))
    assert resolve_model(str(folder)).folder == folder
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(BadInput) as error:
        resolve_model(str(folder))
    assert f"{folder}/model.safetensors is not the file that selfemo.json lists" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("owner/name", r"does not exist: .*; a model on the Hub is hf://owner/name"),
        ("nowhere", "nowhere does not exist: specify the folder"),
        ("ftp://host/model", "a model is a path, or a URI with file://"),
        ("empty", "empty does not exist or is empty"),
        ("other", "neither a model"),
        ("other/notes.txt", "is a file: specify the folder"),
        ("nowhere.yaml", r"nowhere\.yaml: cannot be read"),
    ],
)
def test_a_folder_that_is_not_a_model_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("hello")
    with pytest.raises(Exception, match=message) as error:
        resolve_model(reference)
    assert type(error.value).__name__ in {"BadInput", "InvalidEvolution"}


def test_a_generation_is_chosen_of_an_evolution_alone(tiny_model: Path) -> None:
    with pytest.raises(BadInput, match="YAML file of an evolution"):
        locate_model(str(tiny_model), ReferenceOptions(generation=1))


def test_a_model_on_s3_is_copied_with_its_description(
    s3: S3Server, tiny_model: Path, tmp_path: Path, work: Path
) -> None:
    storage = s3.storage(tmp_path.name)
    store = open_store(storage)
    description = generation_of(store, tiny_model, 1)
    put_best(store, 1)
    options = ReferenceOptions(storage=storage)
    root = join(storage.uri, RUN)
    resolved = resolve_model(root, options)
    assert resolved.description == description
    assert resolved.folder.is_relative_to(work)
    # the scores are written later, with the same size: the copy follows, and copies no weights
    model = join(root, stage_prefix(1, Stage.TRAIN), "model")
    first, second = (with_scores(description, [score(f1=f1)]) for f1 in (0.25, 0.75))
    assert len(encode_description(first)) == len(encode_description(second))
    times = (resolved.folder / "model.safetensors").stat().st_mtime_ns
    for changed in (first, second):
        store.put(join(model, "selfemo.json"), encode_description(changed))
        again = resolve_model(join(root, "best", "manifest.json"), options)
        assert again.description == changed
    assert (resolved.folder / "model.safetensors").stat().st_mtime_ns == times
    with pytest.raises(BadInput, match="does not exist"):
        resolve_model(f"{storage.uri}/nothing", options)


def test_the_environment_names_the_server(
    s3: S3Server, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = s3.storage(tmp_path.name)
    description = described(weights_sha256=model_hashes(tiny_model))
    uri = put_model(open_store(storage), join(storage.uri, "m"), tiny_model, description)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert resolve_model(uri).description == description


def test_a_copy_of_an_earlier_model_is_not_used_for_a_later_one(
    s3: S3Server, tiny_model: Path, tmp_path: Path
) -> None:
    """Without a manifest beside it, the description shows that the weights are others."""
    storage = s3.storage(tmp_path.name)
    store = open_store(storage)
    uri = join(storage.uri, "published")
    options = ReferenceOptions(storage=storage)
    put_model(store, uri, tiny_model, described(weights_sha256=model_hashes(tiny_model)))
    resolve_model(uri, options)
    other = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    put_model(store, uri, other, described(weights_sha256=model_hashes(other)))
    resolved = resolve_model(uri, options)
    assert (resolved.folder / "model.safetensors").read_bytes() == bytes(data)


def test_copies_are_kept_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, work: Path
) -> None:
    assert cache_folder() == work
    monkeypatch.delenv(ENV_WORK)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "selfemo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "selfemo"


def test_prompts_of_a_file_are_read_for_a_base_model(
    tiny_model: Path, store: Store, tmp_path: Path
) -> None:
    file = evolution_file(store, tmp_path)
    prompts = tmp_path / "prompts.json"
    texts = {
        "chat": False,
        "recognize": "R {{ speaker }} {{ text }} {{ labels|join }}",
        "respond": "W {{ speaker }} {{ intended|join }}",
    }
    prompts.write_text(json.dumps(texts))
    document = yaml.safe_load(file.read_text())
    document["spec"]["model"] = {"uri": tiny_model.as_uri(), "prompts": prompts.as_uri()}
    file.write_text(yaml.safe_dump(document))
    best = Best(generation=0, f1=0.1, model_uri=tiny_model.as_uri())
    put_state(file, tmp_path / "state", best, [])
    resolved = resolve_model(str(file), ReferenceOptions(state=tmp_path / "state"))
    assert resolved.folder == tiny_model
    assert resolved.description.prompts.texts["recognize"] == texts["recognize"]
    assert resolved.description.origin is None, "the run did not make it"
