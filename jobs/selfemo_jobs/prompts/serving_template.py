"""The chat template with which an OpenAI-compatible server builds the prompts of both roles.

A request's messages are the turns of a dialogue. The template makes of them, token for token, the
prompt of :meth:`~selfemo_jobs.prompts.sets.PromptSet.recognizer_ids`, or of
:meth:`~selfemo_jobs.prompts.sets.PromptSet.responder_ids` if a system message has the line
``emotion: LABEL``. It is one text in Jinja's language: the prompt set's own templates as macros, a
part that reads the messages (``serving.jinja``), and for a chat set the model's own chat template.

A template cannot count tokens. So a prompt longer than ``maxPromptTokens`` does not lose its oldest
turns, as it does in the stages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from selfemo_api.model_description import ModelDescription
from selfemo_jobs.errors import BadInput
from selfemo_jobs.prompts.prompt_date import STRFTIME_NOW, date_parts
from selfemo_jobs.prompts.special_tokens import special_tokens, split_token, unmarked_tokens
from selfemo_jobs.prompts.template_checks import VARIABLES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: The speaker of a reply to a monologue, as in self-play.
LISTENER = "Listener"
#: The macro that a template of the prompt set becomes.
_MACROS = {"recognize": "selfemo_recognize", "respond": "selfemo_respond"}


@dataclass(frozen=True)
class ServedTokenizer:
    """What a chat template needs of a model's tokenizer."""

    chat_template: str | None = None
    """The model's own chat template. None: it has none."""
    special_tokens: tuple[str, ...] = ()
    """The special tokens that the server's tokenizer would read in the words of a speaker."""
    prefix: str = ""
    """The tokens that the tokenizer puts before a plain text, as one text."""
    splits_special_tokens: bool = False
    """Whether the server's tokenizer has to read all special tokens as ordinary text. It does so
    for plain prompts, as in training. If the template itself has to write a special token (the
    prefix), it puts a blank into those of the dialogue instead, as in a chat."""


def serving_template(description: ModelDescription, tokenizer: ServedTokenizer) -> str:
    """Return the chat template of a model's server.

    Parameters
    ----------
    description
        The model's description: its labels, its context and the texts of its prompts.
    tokenizer
        The parts of its tokenizer.

    Raises
    ------
    BadInput
        If the prompts are for chats and the model has no chat template.
    """
    context, prompts = description.context, description.prompts
    if prompts.chat and not tokenizer.chat_template:
        raise BadInput(
            f"the prompts are {prompts.name}, which are for chats, but the model's tokenizer has "
            "no chat template"
        )
    constants = {
        "selfemo_labels": _literal(description.labels),
        "selfemo_past": str(context.past),
        "selfemo_future": str(context.future),
        "selfemo_listener": _literal(LISTENER),
    }
    body = (resources.files(__package__) / "serving.jinja").read_text(encoding="utf-8")
    return "".join(
        [
            *(_macro(name, prompts.texts[name]) for name in _MACROS),
            *(_assignment(name, value) for name, value in constants.items()),
            body.rstrip("\n"),
            *(_without_special_token(token) for token in tokenizer.special_tokens if token),
            _chat(tokenizer.chat_template or "") if prompts.chat else _plain(tokenizer.prefix),
        ]
    )


def served_tokenizer(tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> ServedTokenizer:
    """Return what a chat template needs of a tokenizer.

    Parameters
    ----------
    tokenizer
        The model's tokenizer.
    chat
        Whether the prompts are chat messages.
    """
    if chat:
        template = tokenizer.get_chat_template() if tokenizer.chat_template else None
        return ServedTokenizer(template, special_tokens(tokenizer))
    prefix = _prefix(tokenizer)
    if prefix:
        return ServedTokenizer(None, special_tokens(tokenizer), prefix)
    # splitting concerns the tokens that are marked as special
    return ServedTokenizer(None, unmarked_tokens(tokenizer), splits_special_tokens=True)


def _prefix(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the tokens that a tokenizer puts before a plain text."""
    marked: list[int] = tokenizer("a")["input_ids"]
    plain: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = range(len(marked) - len(plain) + 1)
    start = next((i for i in starts if marked[i : i + len(plain)] == plain), 0)
    return "".join(tokenizer.convert_ids_to_tokens(marked[:start]))


def _macro(name: str, text: str) -> str:
    """Return a template of the prompt set as a macro, whose arguments are its variables.

    As in the set, the last line break is not part of the template. The line break after the tag,
    and the plus sign, keep blanks at both ends.
    """
    text = re.sub(r"(\r\n|\r|\n)\Z", "", text)
    variables = ", ".join(VARIABLES[name])
    return f"{{%- macro {_MACROS[name]}({variables}) %}}\n{text}{{%+ endmacro -%}}\n"


def _assignment(name: str, value: str) -> str:
    return f"{{%- set {name} = {value} -%}}\n"


def _without_special_token(token: str) -> str:
    """Return the tag that puts a blank into a special token, as the prompt set does in a chat."""
    old, new = _literal(token), _literal(split_token(token))
    return _assignment("selfemo_prompt", f"selfemo_prompt | replace({old}, {new})")


def _chat(template: str) -> str:
    """Return the tags that give the prompt to the model's own chat template, and the template."""
    values = {
        "messages": '[{"role": "user", "content": selfemo_prompt}]',
        "add_generation_prompt": "true",
        "enable_thinking": "false",
        "tools": "none",
        "documents": "none",
    }
    tags = "".join(_assignment(name, value) for name, value in values.items())
    # the template begins as at the start of a file: after a line break that the last tag removes
    return f"{tags}{_date(template)}{{%- set selfemo_prompt = none %}}\n{template}"


def _date(template: str) -> str:
    """Return a macro that gives a chat template the date of all prompts, if it asks for one."""
    parts = date_parts(template)
    if not parts:
        return ""
    filters = "".join(
        f" | replace({_literal(name)}, {_literal(text)})" for name, text in parts.items()
    )
    return f"{{%- macro {STRFTIME_NOW}(format) -%}}{{{{ format{filters} }}}}{{%- endmacro -%}}\n"


def _plain(prefix: str) -> str:
    return f"{{{{- {_literal(prefix)} ~ selfemo_prompt -}}}}"


def _literal(value: str | Sequence[str]) -> str:
    """Return a text, or a list of texts, in Jinja's language."""
    return json.dumps(value, ensure_ascii=False)
