"""Prompt sets: versioned data files that say how the two roles are asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Protocol

import yaml
from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selfemo_api.spec import Role
from selfemo_jobs.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: A prompt before it is tokens: plain text, or the messages of a chat.
Rendered = str | list[dict[str, str]]


class Turn(Protocol):
    """What a prompt needs of an utterance (``datasets.base.Utterance`` has it)."""

    @property
    def speaker(self) -> str:
        """Who says it."""
        ...

    @property
    def text(self) -> str:
        """What is said."""
        ...


@dataclass(frozen=True)
class PromptSet:
    """One way of asking: the templates of both roles and how a completion looks."""

    name: str
    chat: bool
    """Prompts are chat messages, rendered by the model's own chat template."""
    recognizer: Template
    responder: Template
    before: str
    """What a completion begins with, beside its content."""
    after: str
    """What a completion ends with; a chat's ends with the end token instead."""
    stops: dict[Role, tuple[str, ...]]

    def recognize(
        self,
        context: Sequence[Turn],
        speaker: str,
        text: str,
        labels: Sequence[str],
        future: Sequence[Turn] = (),
    ) -> Rendered:
        """Return the recognizer's prompt.

        Parameters
        ----------
        context
            Turns before the target, oldest first.
        speaker, text
            The target utterance.
        labels
            The label set.
        future
            Turns after the target, next first.
        """
        return self._message(
            self.recognizer.render(
                context=context, speaker=speaker, text=text, labels=labels, future=future
            )
        )

    def respond(
        self, context: Sequence[Turn], speaker: str, intended: Sequence[str], labels: Sequence[str]
    ) -> Rendered:
        """Return the responder's prompt: what ``speaker`` says next, feeling ``intended``."""
        return self._message(
            self.responder.render(
                context=context, speaker=speaker, intended=intended, labels=labels
            )
        )

    def answer_text(self, labels: Sequence[str]) -> str:
        """Return the recognizer's completion that names these labels, as training shows it."""
        return f"{self.before}{', '.join(labels)}{self.after}"

    def reply_text(self, text: str) -> str:
        """Return the responder's completion that says this, as training shows it."""
        return f"{self.before}{text}{self.after}"

    def stop(self, role: Role) -> tuple[str, ...]:
        """Return the strings at which a role's completion ends."""
        return self.stops[role]

    def encode(self, tokenizer: PreTrainedTokenizerBase, rendered: Rendered) -> list[int]:
        """Return a prompt's token ids.

        Special tokens that the dialogue itself spells out ("<|im_end|>") are ordinary text in
        them: what a speaker says cannot end the message.

        Raises
        ------
        BadInput
            If the set is for chats and the tokenizer has no chat template.
        """
        if isinstance(rendered, str):
            ids: list[int] = tokenizer(rendered, split_special_tokens=True)["input_ids"]
            return ids[:-1] if len(ids) > 1 and ids[-1] == tokenizer.eos_token_id else ids
        if not tokenizer.chat_template:
            raise BadInput(
                f"`model.prompts` is {self.name}, but the model's tokenizer has no chat template: "
                "use `compact-v1`"
            )
        text = tokenizer.apply_chat_template(
            [{**m, "content": _disarm(m["content"], tokenizer)} for m in rendered],
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,  # templates without the switch ignore it
        )
        encoded: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return encoded

    def encode_completion(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """Return the token ids of a completion to train on; a chat's ends with the end token."""
        ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return [*ids, tokenizer.eos_token_id] if self.chat else ids

    def recognise_ids(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context: Sequence[Turn],
        speaker: str,
        text: str,
        labels: Sequence[str],
        future: Sequence[Turn] = (),
        *,
        max_tokens: int,
    ) -> list[int]:
        """Return the token ids of :meth:`recognize`, at most ``max_tokens`` of them.

        A prompt that is too long loses its oldest turns, then the latest of the future; never the
        target.

        Raises
        ------
        BadInput
            If it is too long even without any other turn.
        """

        def build(kept: int) -> list[int]:
            drop = len(context) + len(future) - kept
            past = context[min(drop, len(context)) :]
            later = future[: len(future) - max(0, drop - len(context))]
            return self.encode(tokenizer, self.recognize(past, speaker, text, labels, later))

        return _fit(build, len(context) + len(future), max_tokens)

    def respond_ids(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context: Sequence[Turn],
        speaker: str,
        intended: Sequence[str],
        labels: Sequence[str],
        *,
        max_tokens: int,
    ) -> list[int]:
        """Return the token ids of :meth:`respond`, at most ``max_tokens``: the oldest turns go.

        Raises
        ------
        BadInput
            If it is too long even without any turn.
        """

        def build(kept: int) -> list[int]:
            past = context[len(context) - kept :]
            return self.encode(tokenizer, self.respond(past, speaker, intended, labels))

        return _fit(build, len(context), max_tokens)

    def _message(self, text: str) -> Rendered:
        return [{"role": "user", "content": text}] if self.chat else text


def _fit(build: Callable[[int], list[int]], turns: int, max_tokens: int) -> list[int]:
    """Return ``build(n)`` for the largest ``n <= turns`` that is not too long.

    Lengths grow with the number of turns, so a bisection finds it.
    """
    ids = build(turns)
    if len(ids) <= max_tokens:
        return ids
    best = build(0)
    if len(best) > max_tokens:
        raise BadInput(
            f"`model.maxPromptTokens` is {max_tokens}, but a prompt without any context needs "
            f"{len(best)} tokens: raise it"
        )
    low, high = 0, turns
    while high - low > 1:
        middle = (low + high) // 2
        ids = build(middle)
        if len(ids) <= max_tokens:
            low, best = middle, ids
        else:
            high = middle
    return best


def _disarm(content: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return text in which the tokenizer finds none of its special tokens."""
    for token in tokenizer.all_special_tokens:
        if token and token in content:
            content = content.replace(token, f"{token[0]} {token[1:]}")
    return content


def prompt_set_names() -> list[str]:
    """Return the names of the sets there are."""
    files = resources.files(__package__).iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


@cache
def load_prompt_set(name: str) -> PromptSet:
    """Return a prompt set by its name (``model.prompts``).

    Raises
    ------
    BadInput
        If there is no such set.
    """
    if name not in prompt_set_names():
        raise BadInput(
            f"`model.prompts` is {name}: there is no such set (there are: "
            f"{', '.join(prompt_set_names())})"
        )
    text = (resources.files(__package__) / f"{name}.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    # plain text for a model, not HTML: nothing is to be escaped
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    return PromptSet(
        name=data["name"],
        chat=data["chat"],
        recognizer=environment.from_string(data["recognize"]),
        responder=environment.from_string(data["respond"]),
        before=data["before"],
        after=data["after"],
        stops={role: tuple(data["stop"][role.value]) for role in Role},
    )
