from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.jobs.models.descriptions import LABELS, config, described, score

from selfemo_api.spec import Engine, StorageSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.description_file import (
    check_weights_match,
    described_hashes,
    encode_description,
    parse_description,
    read_description,
)
from selfemo_jobs.models.model_description import (
    describe,
    prompt_set_of_description,
    with_scores,
    without_local_paths,
)
from selfemo_jobs.models.model_folder import model_hashes, model_sha256
from selfemo_jobs.models.model_license import license_of
from selfemo_jobs.prompts import load_prompt_set, prompt_set_of
from selfemo_jobs.prompts.prompt_texts import TEXT_NAMES
from selfemo_jobs.runtime.stage_prompts import fetch_prompts
from selfemo_jobs.store import open_store


def test_a_description_has_all_that_the_use_of_a_model_needs() -> None:
    description = described()
    assert description.labels == LABELS
    assert description.context.past == 3
    assert description.prompts.max_prompt_tokens == 200
    assert set(description.prompts.texts) == set(TEXT_NAMES)
    decoding = description.decoding
    assert (decoding.engine, decoding.batch_size) == (Engine.TRANSFORMERS, 5)
    assert decoding.engine_args == {"dtype": "bfloat16"}, "the batch size has a field of its own"
    assert decoding.temperature == 0.9
    origin = description.origin
    assert origin is not None
    assert (origin.run, origin.generation, origin.stage) == ("default/demo-0123abcd", 2, "Train")
    assert (origin.base, origin.seed, origin.recipe) == ("hf://owner/base", 7, "small-v2")
    assert origin.parents == {"flywheel": "c" * 64}
    assert description.scores == []


def test_arguments_of_another_engine_are_left_out() -> None:
    other = config(
        selfPlay={"engine": "VLLM", "engineArgs": {"gpu_memory_utilization": 0.5}},
        evaluation={"engine": "Transformers"},
    )
    assert describe(other, weights={}).decoding.engine_args == {}


def test_the_same_configuration_gives_the_same_bytes() -> None:
    shuffled = describe(
        config(),
        weights={"config.json": "b" * 64, "model.safetensors": "a" * 64},
        parents={"flywheel": "c" * 64},
        versions={"selfemo": "1.0", "torch": "2.0"},
        license="apache-2.0",
    )
    data = encode_description(described())
    assert data == encode_description(shuffled)
    assert parse_description(data, "x") == described()


def test_the_texts_of_a_file_of_prompts_are_complete(tmp_path: Path) -> None:
    file = tmp_path / "prompts.yaml"
    file.write_text("chat: false\nrecognize: 'R {{ speaker }} {{ text }} {{ labels|join }}'\n")
    with file.open("a") as more:
        more.write("respond: 'W {{ speaker }} {{ intended|join }}'\n")
    stage = config(model={"uri": "hf://owner/base", "prompts": file.as_uri()})
    store = open_store(StorageSpec(uri=tmp_path.as_uri()))
    fetched = fetch_prompts(stage, store).config
    description = describe(fetched, weights={})
    file.unlink()
    assert description.prompts.name == "compact-v1"
    assert description.prompts.texts["recognize"].startswith("R ")
    prompts = prompt_set_of_description(description)
    expected = prompt_set_of(fetched.spec.model)
    asked = ([], "Ann", "hello", LABELS)
    assert prompts.recognizer_prompt(*asked) == expected.recognizer_prompt(*asked)
    assert prompts.recognizer_text(["joy"]) == expected.recognizer_text(["joy"])


@pytest.mark.parametrize("name", ["chat-v1", "compact-v1", "chat-zh-v1"])
def test_prompts_of_a_built_in_set_are_those_of_the_set(name: str) -> None:
    description = describe(config(model={"uri": "hf://owner/base", "prompts": name}), weights={})
    mine, built_in = prompt_set_of_description(description), load_prompt_set(name)
    assert mine.chat == built_in.chat and mine.stops == built_in.stops
    asked = ([], "Ann", ["joy"], LABELS)
    assert mine.responder_prompt(*asked) == built_in.responder_prompt(*asked)


def test_scores_replace_earlier_ones() -> None:
    once = with_scores(described(), [score(f1=0.4)], [score(f1=0.3)])
    again = with_scores(once, [score(f1=0.6), score("test")], [score(f1=0.3)])
    assert [s.weighted_f1 for s in again.scores] == [0.6, 0.5]
    assert again.weights_sha256 == described().weights_sha256
    assert with_scores(again, [score()]).baseline_scores == []


def test_local_paths_are_shortened_for_others() -> None:
    public = without_local_paths(described())
    text = encode_description(public).decode()
    assert "/home" not in text and "ann" not in text
    assert public.dataset is not None and public.origin is not None
    assert public.dataset.sources[1].uri == "file:///dev.jsonl"
    assert public.dataset.sources[0].uri == "hf://owner/talks?split=train"
    assert public.origin.storage == "file:///store"
    assert public.prompts == described().prompts


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model with its description."""
    copy = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    description = described(weights_sha256=model_hashes(copy))
    (copy / "selfemo.json").write_bytes(encode_description(description))
    (copy / "README.md").write_text("# a card\n")
    return copy


def test_description_files_are_part_of_no_hash(folder: Path, tiny_model: Path) -> None:
    assert model_hashes(folder) == model_hashes(tiny_model)
    assert model_sha256(folder) == model_sha256(tiny_model)


def _tamper(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_tamper, r"model\.safetensors is not the file that selfemo\.json lists: copy the model"),
        (
            lambda folder: (folder / "generation_config.json").unlink(),
            r"generation_config\.json is missing, though selfemo\.json lists it",
        ),
        (
            lambda folder: (folder / "adapter_config.json").write_text("{}"),
            r"adapter_config\.json is not a file that selfemo\.json lists",
        ),
    ],
)
def test_files_that_are_not_those_of_the_description_are_named(
    folder: Path, change: Callable[[Path], None], message: str
) -> None:
    description = read_description(folder)
    assert description is not None
    check_weights_match(folder, description)
    change(folder)
    with pytest.raises(BadInput, match=message) as error:
        check_weights_match(folder, description)
    assert str(folder) in str(error.value)


def test_a_description_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert read_description(tmp_path) is None
    file = tmp_path / "selfemo.json"
    good = json.loads(encode_description(described()))
    for content, message in (
        ("{", "selfemo.json is not a model's description"),
        (json.dumps({**good, "labels": ["one"]}), "labels"),
        (json.dumps({**good, "kind": "Other"}), "is not a model's description of selfemo.dev"),
        (json.dumps({**good, "apiVersion": "selfemo.dev/v9"}), "selfemo.dev/v1alpha1"),
    ):
        file.write_text(content)
        with pytest.raises(BadInput, match=message):
            read_description(tmp_path)
    for content in ("[]", '{"weightsSha256": 3}', "nothing"):
        file.write_text(content)
        assert described_hashes(tmp_path) == {}


def test_the_license_is_that_of_the_base_model(folder: Path, tmp_path: Path) -> None:
    assert license_of(folder, "file:///x") == "apache-2.0", "of the description"
    (folder / "selfemo.json").write_text("of another program")
    assert license_of(folder, "package://smollm2?layers=6") == "apache-2.0"
    for card, expected in (
        ("---\nlicense: mit\ntags: [x]\n---\n# text\n", "mit"),
        ("# text\n---\nlicense: mit\n---\n", ""),
        ("---\nlicense: 'a <b>'\n---\n", ""),
        ("---\nlicense: [\n---\n", ""),
        ("no front matter", ""),
    ):
        (folder / "README.md").write_text(card)
        assert license_of(folder, "hf://owner/base") == expected
