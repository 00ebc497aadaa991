"""The token that ends a turn of a chat, which may be another one than the end token."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from selfemo_jobs.prompts.turn_end import turn_end

HEAD = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
TAIL = "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    """A tokenizer with more added tokens, as Gemma's `<end_of_turn>`."""
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_model)
    found.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    found.add_tokens(["<end>", " joy", "\n\n"])  # not marked as special
    return found


@pytest.mark.parametrize(
    ("after", "end"),
    [
        ("<end_of_turn>\n", "<end_of_turn>"),
        ("{{ eos_token }}", None),
        ("\n", None),
        ("<end>\n", "<end>"),
        (" joy", None),
        ("\n\n", None),
        ("{% if strftime_now('%Y') == '2024' %}<end_of_turn>{% endif %}\n", "<end_of_turn>"),
        ("{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}", None),
    ],
)
def test_the_token_after_an_answer(
    after: str, end: str | None, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = HEAD + after + TAIL
    expected = tokenizer.eos_token_id if end is None else tokenizer.convert_tokens_to_ids(end)
    assert turn_end(tokenizer) == expected
