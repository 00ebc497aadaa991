"""Prompt sets: the compiled templates of both roles, and the form of their completions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from jinja2 import Template

from selfemo_api.spec import Role
from selfemo_jobs.errors import BadInput, PromptTooLong
from selfemo_jobs.prompts.prompt_date import strftime_now
from selfemo_jobs.prompts.special_tokens import without_special_tokens
from selfemo_jobs.prompts.template_checks import ShownTurn
from selfemo_jobs.prompts.turn_end import turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: A prompt before it is tokenized: plain text, or the messages of a chat.
RenderedPrompt = str | list[dict[str, str]]


class Turn(Protocol):
    """The parts of an utterance that a prompt shows, as of ``datasets.dialogue.Utterance``."""

    @property
    def speaker(self) -> str:
        """The speaker's name."""
        ...

    @property
    def text(self) -> str:
        """The words, on one line."""
        ...


@dataclass(frozen=True)
class PromptSet:
    """The templates of both roles, and the form of their completions."""

    name: str
    """The value of ``model.prompts``: a name, or the URI of a file."""
    chat: bool
    """Whether prompts are chat messages, which the model's own chat template renders."""
    recognizer: Template
    responder: Template
    prefix: str
    """The text with which a completion begins, before its content."""
    separator: str
    """The text between two labels of an answer."""
    suffix: str
    """The text with which a completion ends. In a chat it ends with the end token instead."""
    stops: dict[Role, tuple[str, ...]]
    """The strings at which a completion of each role ends."""

    def recognizer_prompt(
        self,
        context: Sequence[Turn],
        speaker: str,
        text: str,
        labels: Sequence[str],
        future: Sequence[Turn] = (),
    ) -> RenderedPrompt:
        """Return the prompt that asks the recognizer for the emotions of an utterance.

        Parameters
        ----------
        context
            The turns before the target, oldest first.
        speaker
            The speaker of the target.
        text
            The words of the target.
        labels
            The label set.
        future
            The turns after the target, in order.
        """
        return self._message(
            self.recognizer.render(
                context=_shown(context),
                speaker=speaker,
                text=text,
                labels=labels,
                future=_shown(future),
            )
        )

    def responder_prompt(
        self, context: Sequence[Turn], speaker: str, intended: Sequence[str], labels: Sequence[str]
    ) -> RenderedPrompt:
        """Return the prompt that asks the responder for an utterance with some emotions.

        Parameters
        ----------
        context
            The turns before the response, oldest first.
        speaker
            The speaker of the response.
        intended
            The emotions that the response is to express.
        labels
            The label set.
        """
        return self._message(
            self.responder.render(
                context=_shown(context), speaker=speaker, intended=intended, labels=labels
            )
        )

    def recognizer_text(self, labels: Sequence[str]) -> str:
        """Return the recognizer's completion with some labels, as training uses it."""
        return f"{self.prefix}{self.separator.join(labels)}{self.suffix}"

    def label_tokens(
        self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
    ) -> dict[str, int]:
        """Return the number of tokens of each label at the start of an answer.

        Parameters
        ----------
        tokenizer
            The model's tokenizer.
        labels
            The label set.
        """
        options = {"add_special_tokens": False, "split_special_tokens": True}
        return {
            label: len(tokenizer(f"{self.prefix}{label}", **options)["input_ids"])
            for label in labels
        }

    def label_answers(
        self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]
    ) -> list[list[int]]:
        """Return the token ids of the recognizer's answer with each label alone.

        Parameters
        ----------
        tokenizer
            The model's tokenizer.
        labels
            The label set.
        """
        return [
            self.encode_completion(tokenizer, self.recognizer_text([label])) for label in labels
        ]

    def responder_text(self, text: str) -> str:
        """Return the responder's completion with some words, as training uses it."""
        return f"{self.prefix}{text}{self.suffix}"

    def stop(self, role: Role) -> tuple[str, ...]:
        """Return the strings at which a completion of a role ends."""
        return self.stops[role]

    def encode(self, tokenizer: PreTrainedTokenizerBase, rendered: RenderedPrompt) -> list[int]:
        """Return the token ids of a prompt.

        A special token that is spelled out in the dialogue ("<|im_end|>") is encoded as ordinary
        text, also one that has no name: the words of a speaker cannot end the message.

        Parameters
        ----------
        tokenizer
            The model's tokenizer.
        rendered
            The prompt.

        Raises
        ------
        BadInput
            If the set is for chats and the tokenizer has no chat template.
        """
        return self.encode_all(tokenizer, [rendered])[0]

    def encode_all(
        self, tokenizer: PreTrainedTokenizerBase, rendered: Sequence[RenderedPrompt]
    ) -> list[list[int]]:
        """Return the token ids of several prompts, each as :meth:`encode` returns them.

        The tokenizer gets all of them at once, and may use several threads.

        Parameters
        ----------
        tokenizer
            The model's tokenizer.
        rendered
            The prompts, at least one.

        Raises
        ------
        BadInput
            If the set is for chats and the tokenizer has no chat template.
        """
        if not self.chat:
            texts = [without_special_tokens(str(t), tokenizer, unmarked=True) for t in rendered]
            plain: list[list[int]] = tokenizer(texts, split_special_tokens=True)["input_ids"]
            end = tokenizer.eos_token_id
            return [ids[:-1] if len(ids) > 1 and ids[-1] == end else ids for ids in plain]
        texts = [self._chat_text(tokenizer, prompt) for prompt in rendered]
        encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return encoded

    def _chat_text(self, tokenizer: PreTrainedTokenizerBase, rendered: RenderedPrompt) -> str:
        """Return the text of a chat, up to where the answer begins. Raises BadInput."""
        if not tokenizer.chat_template:
            raise BadInput(
                f"`model.prompts` is {self.name}, but the model's tokenizer has no chat template: "
                "use `compact-v1`"
            )
        messages = [m for m in rendered if not isinstance(m, str)]
        text: str = tokenizer.apply_chat_template(
            [{**m, "content": without_special_tokens(m["content"], tokenizer)} for m in messages],
            add_generation_prompt=True,
            tokenize=False,
            enable_thinking=False,  # templates without this option ignore it
            strftime_now=strftime_now,  # in place of the one that reads the clock
        )
        return text

    def encode_completion(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        """Return the token ids of a completion for training; in a chat, with the end of a turn.

        Special tokens in its words are encoded as text, as in a prompt.
        """
        words = text.removeprefix(self.prefix).removesuffix(self.suffix)
        begin = len(self.prefix) if text.startswith(self.prefix) else 0
        end = begin + len(words)
        words = without_special_tokens(words, tokenizer, unmarked=True)
        text = f"{text[:begin]}{words}{text[end:]}"
        ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return [*ids, turn_end(tokenizer)] if self.chat else ids

    def recognizer_ids(
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
        """Return the token ids of :meth:`recognizer_prompt`, at most ``max_tokens`` of them.

        A prompt that is too long first loses its oldest turns, and then the latest of the future
        ones. It never loses the target.

        Parameters
        ----------
        tokenizer
            The model's tokenizer.
        context, speaker, text, labels, future
            See :meth:`recognizer_prompt`.
        max_tokens
            The most tokens of the prompt.

        Raises
        ------
        BadInput
            If the prompt is too long without any other turn.
        """

        def build(kept: int) -> list[int]:
            drop = len(context) + len(future) - kept
            past = context[min(drop, len(context)) :]
            later = future[: len(future) - max(0, drop - len(context))]
            return self.encode(
                tokenizer, self.recognizer_prompt(past, speaker, text, labels, later)
            )

        return _fit(build, len(context) + len(future), max_tokens)

    def responder_ids(
        self,
        tokenizer: PreTrainedTokenizerBase,
        context: Sequence[Turn],
        speaker: str,
        intended: Sequence[str],
        labels: Sequence[str],
        *,
        max_tokens: int,
    ) -> list[int]:
        """Return the token ids of :meth:`responder_prompt`, at most ``max_tokens`` of them.

        A prompt that is too long loses its oldest turns. It never loses the one that is answered.

        Parameters
        ----------
        tokenizer
            The model's tokenizer.
        context, speaker, intended, labels
            See :meth:`responder_prompt`.
        max_tokens
            The most tokens of the prompt.

        Raises
        ------
        PromptTooLong
            If the prompt is too long with the last turn of the context alone.
        """

        def build(kept: int) -> list[int]:
            past = context[len(context) - kept :]
            return self.encode(tokenizer, self.responder_prompt(past, speaker, intended, labels))

        return _fit(build, len(context), max_tokens, fewest=min(1, len(context)))

    def _message(self, text: str) -> RenderedPrompt:
        return [{"role": "user", "content": text}] if self.chat else text


def _fit(
    build: Callable[[int], list[int]], turns: int, max_tokens: int, fewest: int = 0
) -> list[int]:
    """Return the longest prompt that is not too long.

    Parameters
    ----------
    build
        Returns the token ids of the prompt with so many turns. More turns give more tokens, so a
        bisection finds the number.
    turns
        The number of turns that there are.
    max_tokens
        The most tokens of the prompt.
    fewest
        The number of turns that the prompt must have.

    Raises
    ------
    PromptTooLong
        If the prompt is too long with the fewest turns.
    """
    ids = build(turns)
    if len(ids) <= max_tokens:
        return ids
    best = build(fewest)
    if len(best) > max_tokens:
        alone = "with the turn that it answers alone" if fewest else "without any context"
        raise PromptTooLong(
            f"`model.maxPromptTokens` is {max_tokens}, but a prompt {alone} needs {len(best)} "
            "tokens: raise it"
        )
    low, high = fewest, turns
    while high - low > 1:
        middle = (low + high) // 2
        ids = build(middle)
        if len(ids) <= max_tokens:
            low, best = middle, ids
        else:
            high = middle
    return best


def _shown(turns: Sequence[Turn]) -> list[ShownTurn]:
    return [ShownTurn(turn.speaker, turn.text) for turn in turns]
