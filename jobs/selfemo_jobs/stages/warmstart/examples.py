"""The examples of a supervised training: prompts with the completions to learn.

The recognizer learns to answer with all labels of an utterance. The responder learns to say what
the speaker said next, given these labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selfemo_api.spec import View
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.errors import BadInput, PromptTooLong
from selfemo_jobs.prompts.sets import PromptSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """A prompt with the completion to learn."""

    prompt: tuple[int, ...]
    """Token ids of the prompt."""
    completion: tuple[int, ...]
    """Token ids of the completion."""

    @property
    def text(self) -> tuple[int, ...]:
        """Token ids of the prompt and the completion."""
        return (*self.prompt, *self.completion)


def examples_of(
    dialogues: Sequence[Dialogue],
    labels: Sequence[str],
    prompts: PromptSet,
    tokenizer: PreTrainedTokenizerBase,
    *,
    views: Sequence[View],
    past: int,
    max_prompt_tokens: int,
    max_response_tokens: int | None = None,
) -> tuple[list[Example], list[Example]]:
    """Return the recognizer's and the responder's examples, in the order of the dialogues.

    Parameters
    ----------
    dialogues
        The labeled dialogues. Utterances without labels give no examples.
    labels
        The label set.
    prompts
        The prompt set.
    tokenizer
        The model's tokenizer.
    views
        How much of the dialogue the recognizer's examples show. Each utterance gives one example in
        each view.
    past
        The number of turns before the response that the responder's examples show. At least one: a
        response answers something.
    max_prompt_tokens
        The largest number of tokens of a prompt. Longer prompts lose their oldest turns.
    max_response_tokens
        The largest number of tokens of a response. A longer one loses its end: self-play ends it
        there as well. None: a response is learned as a whole.

    Raises
    ------
    BadInput
        If a prompt of the recognizer is too long without any other turn.
    """
    recognizer, responder = [], []
    for dialogue in dialogues:
        for index, turn in enumerate(dialogue.turns):
            if not turn.labels:
                continue
            answer = prompts.encode_completion(tokenizer, prompts.recognizer_text(turn.labels))
            context = dialogue.turns[max(0, index - max(1, past)) : index]
            asked = None
            try:
                for view in views:
                    prompt = prompts.recognizer_ids(
                        tokenizer,
                        dialogue.turns[max(0, index - view.past) : index],
                        turn.speaker,
                        turn.text,
                        labels,
                        dialogue.turns[index + 1 : index + 1 + view.future],
                        max_tokens=max_prompt_tokens,
                    )
                    recognizer.append(Example(tuple(prompt), tuple(answer)))
                # a prompt that does not fit is left out: the responder may not even have a role
                with suppress(PromptTooLong):
                    asked = context and prompts.responder_ids(
                        tokenizer,
                        context,
                        turn.speaker,
                        turn.labels,
                        labels,
                        max_tokens=max_prompt_tokens,
                    )
            except BadInput as error:
                raise BadInput(f"dialogue {dialogue.id} utterance {index}: {error}") from None
            if not asked:
                continue
            reply = prompts.encode_completion(tokenizer, prompts.responder_text(turn.text))
            responder.append(Example(tuple(asked), tuple(reply[:max_response_tokens])))
    return recognizer, responder
