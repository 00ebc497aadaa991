"""The token with which a model ends its turn in a chat."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from selfemo_jobs.prompts.prompt_date import strftime_now
from selfemo_jobs.prompts.special_tokens import is_control_token

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWER = "answer"


@lru_cache(maxsize=4)
def turn_end(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that follows an answer in the chat template; otherwise the end token.

    They differ for some models: Gemma's turns end with ``<end_of_turn>``, and its end token is
    ``<eos>``, which it never says after an answer. Engines end a completion at both. An added token
    that is a word or a line break ends no turn: it can be a part of what is said.

    Parameters
    ----------
    tokenizer
        The model's tokenizer, with a chat template.
    """
    end: int = tokenizer.eos_token_id
    messages = [
        {"role": "user", "content": "question"},
        {"role": "assistant", "content": _ANSWER},
    ]
    try:
        text = str(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=False, strftime_now=strftime_now
            )
        )
    # a template may refuse messages of the assistant
    except (TemplateError, TypeError, ValueError):
        return end
    _, found, after = text.rpartition(_ANSWER)
    ids = tokenizer(after, add_special_tokens=False)["input_ids"] if found else []
    added = tokenizer.added_tokens_decoder.get(ids[0]) if ids else None
    return int(ids[0]) if added is not None and is_control_token(added) else end
