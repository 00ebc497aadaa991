"""Special tokens in the words of a speaker, which a chat must read as text.

A chat template writes special tokens such as ``<|im_end|>`` itself. The same characters in the
words of a speaker would end the message, or begin one of another role. Not all files of tokenizers
mark such a token as special: those of DeepSeek's distilled models do not mark ``<｜User｜>``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from selfemo_jobs.prompts.prompt_date import strftime_now

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Conversations that a template writes. A template may refuse a role, or an order of roles.
_CONVERSATIONS = (("user",), ("user", "assistant", "user"), ("system", "user", "assistant", "user"))
#: A sign: an added token that has none is a word or a blank, and speakers use those.
_SIGN = re.compile(r"[^\w\s]")


class _Tokens(NamedTuple):
    """The special tokens of a tokenizer with a chat template, in the order of replacement."""

    chat_template: object
    all: tuple[str, ...]
    unmarked: tuple[str, ...]


#: The tokens of each tokenizer: they are read once, and used for each prompt.
_known: WeakKeyDictionary[PreTrainedTokenizerBase, _Tokens] = WeakKeyDictionary()


class AddedToken(Protocol):
    """A token that was added to a tokenizer, as of the library ``tokenizers``."""

    @property
    def content(self) -> str:
        """The text of the token."""
        ...

    @property
    def special(self) -> bool:
        """Whether the tokenizer's files mark it as special."""
        ...


def is_control_token(token: AddedToken) -> bool:
    """Return whether an added token that a chat template writes divides its messages.

    A token that is not marked as special does so if it has a sign and more than one character. A
    word (" joy") or a line break can be an added token, too.

    Parameters
    ----------
    token
        The token.
    """
    return token.special or (len(token.content) > 1 and bool(_SIGN.search(token.content)))


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the special tokens that a tokenizer reads in a text, in the order of replacement.

    Those with a name (the end of a sequence, padding) come first. The others, such as
    ``<|im_start|>`` of many models, are only in the list of added tokens. Added tokens that the
    chat template writes count too if they are not marked as special.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    """
    return _tokens(tokenizer).all


def unmarked_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return those of :func:`special_tokens` that the tokenizer's files do not mark as special.

    A tokenizer that splits special tokens (``split_special_tokens``) does not split them.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    """
    return _tokens(tokenizer).unmarked


def _tokens(tokenizer: PreTrainedTokenizerBase) -> _Tokens:
    known = _known.get(tokenizer)
    if known is not None and known.chat_template == tokenizer.chat_template:
        return known
    named = dict.fromkeys(filter(None, tokenizer.all_special_tokens))
    added = tokenizer.added_tokens_decoder
    written = {
        added[number].content
        for text in _conversations(tokenizer)
        for number in tokenizer(text, add_special_tokens=False)["input_ids"]
        if number in added and is_control_token(added[number])
    }
    # a blank cannot be put into one character
    marked = {t.content for t in added.values() if t.special and len(t.content) > 1}
    unmarked = {t.content for t in added.values() if not t.special} & {*written, *named}
    others = _longest_first((marked | unmarked) - set(named))
    tokens = _Tokens(tokenizer.chat_template, (*named, *others), _longest_first(unmarked))
    _known[tokenizer] = tokens
    return tokens


def _longest_first(tokens: set[str]) -> tuple[str, ...]:
    return tuple(sorted(tokens, key=lambda token: (-len(token), token)))


def _conversations(tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Yield the texts of some conversations, as the chat template writes them."""
    if not tokenizer.chat_template:
        return
    for roles in _CONVERSATIONS:
        messages = [{"role": role, "content": "word"} for role in roles]
        try:
            yield str(
                tokenizer.apply_chat_template(
                    messages,
                    add_generation_prompt=True,
                    tokenize=False,
                    enable_thinking=False,
                    strftime_now=strftime_now,
                )
            )
        except (TemplateError, TypeError, ValueError):
            continue


def split_token(token: str) -> str:
    """Return a special token with a blank inside, so that it is read as text.

    Parameters
    ----------
    token
        The token.

    Examples
    --------
    >>> split_token("<|im_end|>")
    '< |im_end|>'
    """
    return f"{token[0]} {token[1:]}"


def without_special_tokens(
    text: str, tokenizer: PreTrainedTokenizerBase, *, unmarked: bool = False
) -> str:
    """Return a text in which a tokenizer finds no special token: each has a blank inside.

    Parameters
    ----------
    text
        The text of a message. Without special tokens it is returned as it is.
    tokenizer
        The model's tokenizer.
    unmarked
        Whether only :func:`unmarked_tokens` get a blank, for a text whose special tokens the
        tokenizer splits itself.
    """
    for token in unmarked_tokens(tokenizer) if unmarked else special_tokens(tokenizer):
        if token in text:
            text = text.replace(token, split_token(token))
    return text
