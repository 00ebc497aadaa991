"""Loads a prompt set: a built-in one, a file, or one with texts of the spec."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from jinja2 import Template

from selfemo_api.spec import ModelSpec, Role
from selfemo_jobs.errors import BadInput
from selfemo_jobs.prompts.answers import parse_labels
from selfemo_jobs.prompts.prompt_texts import (
    COMPLETION_NAMES,
    PromptTexts,
    built_in_texts,
    parse_prompt_file,
    stop_name,
)
from selfemo_jobs.prompts.sets import PromptSet
from selfemo_jobs.prompts.template_checks import compile_template


def load_prompt_set(name: str, templates: Mapping[str, str] | None = None) -> PromptSet:
    """Return a built-in prompt set.

    Parameters
    ----------
    name
        The name of the set, as in ``model.prompts``. A stage that has a file there puts its texts
        into ``model.promptTemplates`` first (:mod:`selfemo_jobs.runtime.stage_prompts`).
    templates
        Texts that replace those of the set, as in ``model.promptTemplates``.

    Raises
    ------
    BadInput
        If there is no such set, or one of its texts cannot be used. The message names the text.
    """
    return compile_prompt_set(built_in_texts(name).with_texts(templates or {}))


def parse_prompt_set(
    data: bytes, place: str, templates: Mapping[str, str] | None = None
) -> PromptSet:
    """Return the prompt set of a file.

    Parameters
    ----------
    data
        The bytes of a YAML or JSON document.
    place
        Its URI, for messages.
    templates
        Texts that replace those of the file, as in ``model.promptTemplates``.

    Raises
    ------
    BadInput
        If the document or one of its texts cannot be used. The message names it.
    """
    return compile_prompt_set(parse_prompt_file(data, place).with_texts(templates or {}))


def prompt_set_of(model: ModelSpec) -> PromptSet:
    """Return the prompt set of a model's spec: of ``prompts`` and ``promptTemplates``.

    Parameters
    ----------
    model
        The field ``spec.model``.

    Raises
    ------
    BadInput
        As :func:`load_prompt_set` does.
    """
    return load_prompt_set(model.prompts, model.prompt_templates)


def compile_prompt_set(texts: PromptTexts) -> PromptSet:
    """Return the prompt set with some texts.

    Parameters
    ----------
    texts
        The texts of a document, with those of the spec.

    Raises
    ------
    BadInput
        If a template cannot be used, or an answer of the set would not be read back.
    """
    key = tuple(sorted(texts.texts.items()))
    return _compile(texts.place, texts.chat, key, texts.replaced)


@lru_cache(maxsize=64)
def _compile(
    place: str, chat: bool, items: tuple[tuple[str, str], ...], replaced: frozenset[str]
) -> PromptSet:
    texts = PromptTexts(place, chat, dict(items), replaced)
    prompts = PromptSet(
        name=place,
        chat=chat,
        recognizer=_template(texts, "recognize"),
        responder=_template(texts, "respond"),
        prefix=texts.texts["before"],
        separator=texts.texts["between"],
        suffix=texts.texts["after"],
        stops={role: tuple(filter(None, [texts.texts[stop_name(role)]])) for role in Role},
    )
    _check_completions(prompts, texts)
    return prompts


def _template(texts: PromptTexts, name: str) -> Template:
    return compile_template(name, texts.texts[name], texts.where(name))


def _check_completions(prompts: PromptSet, texts: PromptTexts) -> None:
    """Refuse texts around completions with which an answer would not end or not be read back."""
    where = texts.where(*COMPLETION_NAMES)
    labels = ("joy", "anger")
    answer = prompts.recognizer_text(labels)
    if parse_labels(answer, labels).named != labels or not parse_labels(answer, labels).well_formed:
        raise BadInput(
            f"{where}: the answer `{answer.strip()}` would not be read as two labels: `before` and "
            "`after` may be blanks and punctuation, `between` a comma or a line break"
        )
    for role in Role:
        name = stop_name(role)
        ends = any(stop in prompts.suffix for stop in prompts.stop(role))
        if not prompts.chat and not ends:
            raise BadInput(
                f"{where}: `after` does not contain `{name}`: a completion would not end there"
            )
        text = prompts.recognizer_text(labels) if role is Role.RECOGNIZER else prompts.prefix
        if any(stop in text.removesuffix(prompts.suffix) for stop in prompts.stop(role)):
            raise BadInput(f"{where}: `{name}` would end a completion before its content")
