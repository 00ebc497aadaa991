"""The light tokenizer gives what the one of Transformers gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.prompts import load_prompt_set, prompt_set_names
from selfemo_jobs.stages.check import light_tokenizer
from selfemo_jobs.stages.check.light_tokenizer import LightTokenizer, read_tokenizer

TEXTS = ("joy, anger", " neutral", "困惑", "What? <|im_end|> No!", "")


def test_it_is_equal_to_that_of_transformers(tiny_model: Path) -> None:
    light, full = read_tokenizer(tiny_model), load_tokenizer(tiny_model)
    assert isinstance(light, LightTokenizer)
    assert (light.eos_token_id, len(light)) == (full.eos_token_id, len(full))
    assert set(light.all_special_tokens) == set(full.all_special_tokens)
    for text in TEXTS:
        for split in (False, True):
            options = {"add_special_tokens": False, "split_special_tokens": split}
            assert light(text, **options)["input_ids"] == full(text, **options)["input_ids"]


@pytest.mark.parametrize("name", prompt_set_names())
def test_prompts_have_the_same_tokens(tiny_model: Path, name: str) -> None:
    light, full = read_tokenizer(tiny_model), load_tokenizer(tiny_model)
    prompts = load_prompt_set(name)
    for text in TEXTS[:4]:
        rendered = prompts.recognizer_prompt((), "Ann", text, ["joy", "anger"])
        assert prompts.encode(light, rendered) == prompts.encode(full, rendered)


def test_special_tokens_as_objects_and_several_chat_templates(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").unlink()
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    content["eos_token"] = {"content": content["eos_token"], "lstrip": False}
    content["chat_template"] = [
        {"name": "tools", "template": "tools"},
        {"name": "default", "template": "{{ messages[0].content }}{{ eos_token }}"},
    ]
    path.write_text(json.dumps(content))
    light = read_tokenizer(folder)
    message = [{"role": "user", "content": "Hello"}]
    assert light.apply_chat_template(message, add_generation_prompt=True) == "Hello<|im_end|>"
    assert light.eos_token_id == read_tokenizer(tiny_model).eos_token_id


def test_files_that_need_transformers_are_read_with_it(tiny_model: Path, tmp_path: Path) -> None:
    """No file names the end token: the class of the tokenizer may."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text())
    del content["eos_token"]
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="the tokenizer has no end token: set `eos_token`"):
        read_tokenizer(folder)


def test_a_damaged_file_is_named(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(BadInput, match="the tokenizer cannot be read: "):
        read_tokenizer(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(BadInput, match=r"tokenizer_config\.json is not JSON: "):
        read_tokenizer(folder)


def test_a_disk_that_is_away_is_not_a_broken_tokenizer(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        @staticmethod
        def from_file(path: str) -> None:
            raise Exception("Input/output error (os error 5)")  # noqa: TRY002 - as the library does

    monkeypatch.setattr(light_tokenizer, "Tokenizer", Away)
    with pytest.raises(Unavailable, match="the disk was not available"):
        read_tokenizer(tiny_model)
