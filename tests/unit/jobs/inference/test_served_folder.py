from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from selfemo_api.dataset_labels import MELD
from selfemo_api.model_description import Decoding, ModelDescription, PromptSetting
from selfemo_api.spec import Context, MaxTokens
from selfemo_jobs.errors import BadInput
from selfemo_jobs.inference.served_folder import sample_prompts, stop_tokens, write_served_folder
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_description import prompt_set_of_description
from selfemo_jobs.prompts.prompt_texts import built_in_texts


def description(name: str = "compact-v1", **texts: str) -> ModelDescription:
    document = built_in_texts(name).with_texts(texts)
    setting = PromptSetting(
        name=name, chat=document.chat, texts=dict(document.texts), max_prompt_tokens=100
    )
    return ModelDescription(
        labels=list(MELD),
        context=Context(past=2, future=0),
        prompts=setting,
        decoding=Decoding(max_tokens=MaxTokens(recognizer=6, responder=20)),
    )


@pytest.mark.parametrize("name", ["compact-v1", "chat-v1"])
def test_folder(tiny_model: Path, tmp_path: Path, name: str) -> None:
    served = write_served_folder(tiny_model, description(name), tmp_path / "served")
    assert served.max_model_len == 120
    assert served.template_file.read_text(encoding="utf-8") == served.template
    weights = served.folder / "model.safetensors"
    assert weights.is_symlink()
    assert weights.read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    tokenizer = load_tokenizer(served.folder)
    assert tokenizer.split_special_tokens is (name == "compact-v1")
    settings = json.loads((served.folder / "generation_config.json").read_text())
    assert settings["max_new_tokens"] == 20
    end = tokenizer.eos_token_id
    assert end in settings["eos_token_id"]
    line_break = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    assert (line_break in settings["eos_token_id"]) is (name == "compact-v1")
    # nothing is written into the model's own folder
    assert not (tiny_model / "selfemo.json").exists()
    own = json.loads((tiny_model / "tokenizer_config.json").read_text())
    assert "split_special_tokens" not in own


def test_stop_tokens_take_no_word_away(tiny_model: Path) -> None:
    tokenizer: Any = load_tokenizer(tiny_model)
    tokenizer.add_tokens(["!\n", " \n\n", "\nBob"])
    prompts = prompt_set_of_description(description())
    texts = {tokenizer.decode([token]) for token in stop_tokens(tokenizer, prompts)}
    assert texts == {"\n", " \n\n", "\nBob"}
    assert not stop_tokens(tokenizer, prompt_set_of_description(description("chat-v1")))


def test_a_template_that_prints_a_turn_as_a_whole_is_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    model = description(recognize='{{ context | join(" ") }}\n{{ text }}')
    with pytest.raises(BadInput, match=r"cannot be served: .* print `turn\.speaker` and `turn"):
        write_served_folder(tiny_model, model, tmp_path / "served")


def test_a_chat_template_that_cannot_be_a_part(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.jinja").write_text(
        "{% if selfemo is defined %}{{ raise_exception('not alone') }}{% endif %}"
        "{{ messages[0].content }}"
    )
    with pytest.raises(BadInput, match="cannot be served: not alone"):
        write_served_folder(folder, description("chat-v1"), tmp_path / "served")


def test_prompts_longer_than_the_positions_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 119}))
    with pytest.raises(BadInput, match=r"a context of 120, but it supports 119; .* at most 99"):
        write_served_folder(folder, description(), tmp_path / "served")
    assert not (tmp_path / "served").exists()


def test_samples_show_all_turns_of_the_context(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    model = description().model_copy(update={"context": Context(past=1, future=1)})
    prompts = [tokenizer.decode(ids) for _, ids in sample_prompts(model, tokenizer)]
    assert any("\nLater " in prompt for prompt in prompts)
    assert all(prompt.count("\n") <= 3 for prompt in prompts)
