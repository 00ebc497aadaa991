"""Special tokens in the words of a speaker, which a chat must read as text.

A chat template writes special tokens such as ``<|im_end|>`` itself. The same characters in the
words of a speaker would end the message, or begin one of another role.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The tokens of each tokenizer: they are read once, and used for each prompt.
_known: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[str, ...]] = WeakKeyDictionary()


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the special tokens that a tokenizer reads in a text, in the order of replacement.

    Those with a name (the end of a sequence, padding) come first. The others, such as
    ``<|im_start|>`` of many models, are only in the list of added tokens.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    """
    tokens = _known.get(tokenizer)
    if tokens is None:
        named = dict.fromkeys(filter(None, tokenizer.all_special_tokens))
        added = tokenizer.added_tokens_decoder.values()
        # a blank cannot be put into one character
        others = {t.content for t in added if t.special and len(t.content) > 1} - set(named)
        tokens = (*named, *sorted(others, key=lambda token: (-len(token), token)))
        _known[tokenizer] = tokens
    return tokens


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


def without_special_tokens(text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a text in which a tokenizer finds no special token: each has a blank inside.

    Parameters
    ----------
    text
        The text of a message. Without special tokens it is returned as it is.
    tokenizer
        The model's tokenizer.
    """
    for token in special_tokens(tokenizer):
        if token in text:
            text = text.replace(token, split_token(token))
    return text
