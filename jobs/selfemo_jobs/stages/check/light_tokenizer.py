"""A model's tokenizer without Transformers, whose tokenizers import torch and take seconds.

It reads ``tokenizer.json`` with the library ``tokenizers``, which Transformers uses for such a file
as well. A model without that file is read with Transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from selfemo_jobs.errors import BadInput, error_line
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.load_errors import passing_load_error

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


class LightTokenizer:
    """The part of a tokenizer of Transformers that prompts need.

    Parameters
    ----------
    tokenizer
        The tokenizer of the file.
    config
        The content of ``tokenizer_config.json``, and of ``special_tokens_map.json``.
    chat_template
        The chat template, or None.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: dict[str, Any], chat_template: str | None
    ) -> None:
        self._tokenizer = tokenizer
        self._named = {n: text for n in _SPECIAL if (text := _token_text(config.get(n)))}
        self.chat_template = chat_template
        self.eos_token_id: int | None = tokenizer.token_to_id(self._named.get("eos_token", ""))

    def __len__(self) -> int:
        """Return the number of token ids: one more than the highest."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens that have a name."""
        return list(dict.fromkeys(self._named.values()))

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The added tokens of the file by their ids, special ones and others."""
        return dict(self._tokenizer.get_added_tokens_decoder())

    def __call__(
        self,
        text: str | list[str],
        *,
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
    ) -> dict[str, Any]:
        """Return the token ids of a text, or of each of several, under the key ``input_ids``."""
        self._tokenizer.encode_special_tokens = split_special_tokens
        texts = [text] if isinstance(text, str) else text
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        ids = [list(encoding.ids) for encoding in encodings]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, add_generation_prompt: bool, **options: Any
    ) -> str:
        """Return a chat as text, as Transformers renders it."""
        from transformers.utils.chat_template_utils import render_jinja_template

        options.pop("tokenize", None)
        rendered, _ = render_jinja_template(
            [messages],
            chat_template=self.chat_template,
            add_generation_prompt=add_generation_prompt,
            **self._named,
            **options,
        )
        return str(rendered[0])


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a model; that of Transformers where its files need it.

    Parameters
    ----------
    folder
        The folder with the tokenizer's files.

    Raises
    ------
    BadInput
        If the folder has no tokenizer, it cannot be read, or it has no end token.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return load_tokenizer(folder)
    config = {
        **_read(folder / "special_tokens_map.json"),
        **_read(folder / "tokenizer_config.json"),
    }
    try:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except Exception as error:  # the Rust library raises bare exceptions
        broken = BadInput(
            f"{folder}: the tokenizer cannot be read: {error_line(error)}: copy or download the "
            "model again"
        )
        raise passing_load_error(folder, error) or broken from error
    light = LightTokenizer(tokenizer, config, _chat_template(folder, config))
    # an end token that no file names is that of the tokenizer's class
    return light if light.eos_token_id is not None else load_tokenizer(folder)


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file; nothing if it is missing. Raises BadInput."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    return value if isinstance(value, dict) else {}


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """Return the chat template: the one of its own file, or the default one of the settings."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template") or _read(folder / "chat_template.json").get(
        "chat_template"
    )
    if isinstance(template, list):  # several templates by name
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _token_text(value: Any) -> str:
    """Return the text of a special token, which the files have as text or as an object."""
    return str(value.get("content", "") if isinstance(value, dict) else value or "")
