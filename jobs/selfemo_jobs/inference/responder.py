"""The responder: replies that are to express an emotion, each with a recognizer's reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import Engine, Role
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.datasets.text_files import one_line
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.errors import BadInput, PromptTooLong
from selfemo_jobs.inference.loaded_model import LoadedModel
from selfemo_jobs.inference.recognizer import Reading, Recognizer
from selfemo_jobs.inference.responses import is_valid_response, last_turns, responder_context
from selfemo_jobs.inference.targets import Target, longest_beginning, too_long
from selfemo_jobs.prompts.sets import Turn
from selfemo_jobs.runtime.closing import Closing


@dataclass(frozen=True)
class Reply:
    """A candidate of a reply."""

    text: str
    """The words. Empty if the model said nothing."""
    reading: Reading
    """The probability of each label that the recognizer gives it. All are 0 for an empty reply."""
    expresses: bool
    """Whether the label with the largest probability is the intended emotion."""
    valid: bool = True
    """Whether it is one complete line with a word. A reply at the limit of its length is cut off.
    Self-play continues a dialogue with valid replies only."""


class Responder(Closing):
    """A model that replies to dialogues with an emotion. It is a context manager.

    Parameters
    ----------
    folder
        The model's folder.
    description
        The labels, the prompts and the decoding of the model.
    recognizer
        Reads the replies. It stays open when the responder is closed. None: the same model.
    engine
        The engine. None: the one with which the model was evaluated.
    engine_args
        The arguments of the engine. None: those of the evaluation, if it had the same engine.

    Raises
    ------
    BadInput
        If a prompt text cannot be used, the engine is not installed or does not have an argument,
        or the model cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        description: ModelDescription,
        *,
        recognizer: Recognizer | None = None,
        engine: Engine | None = None,
        engine_args: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = LoadedModel(
            folder, description, engine=engine, engine_args=engine_args, responds=True
        )
        self._recognizer = recognizer or Recognizer(folder, description, model=self._model)
        #: How many calls of :meth:`reply` gave the model only the beginning of the last turn.
        self.shortened = 0

    @property
    def recognizer(self) -> Recognizer:
        """The recognizer that reads the replies. By default it is the same loaded model."""
        return self._recognizer

    @property
    def labels(self) -> Sequence[str]:
        """The label set."""
        return self._model.labels

    def reply(
        self, context: Sequence[Turn], speaker: str, emotion: str, *, n: int = 1, seed: int = 0
    ) -> list[Reply]:
        """Return candidates of the next turn of a dialogue, in the order in which they were drawn.

        Of a last turn that is too long for a prompt, the model gets the beginning
        (:attr:`shortened`).

        Parameters
        ----------
        context
            The turns so far, oldest first. The last one is answered.
        speaker
            The name of the speaker who replies.
        emotion
            The emotion that the reply is to express: a label.
        n
            The number of candidates, at least 1.
        seed
            The seed of the draws. The same arguments give the same candidates.

        Raises
        ------
        BadInput
            If the emotion is not a label, or a prompt is too long without any word of the last
            turn.
        """
        for labels in (self.labels, self._recognizer.labels):
            if emotion not in labels:
                raise BadInput(f"{emotion} is not a label of the model ({', '.join(labels)})")
        if n < 1:
            raise BadInput(f"the number of candidates is {n}: it must be 1 or more")
        model = self._model
        turns = [Utterance(one_line(turn.speaker), one_line(turn.text)) for turn in context]
        speaker = one_line(speaker)
        prompt = self._prompt(turns, speaker, emotion)
        with model.lock:
            (completions,) = model.engine.generate([prompt], self._sampling(n, seed))
        texts = [completion.text.strip() for completion in completions]
        readings = self._readings(turns, speaker, texts)
        return [
            Reply(
                text=text,
                reading=reading,
                expresses=bool(text) and _top(reading) == emotion,
                valid=is_valid_response(completion),
            )
            for completion, text, reading in zip(completions, texts, readings, strict=True)
        ]

    def close(self) -> None:
        """Free the model."""
        self._model.close()

    def _prompt(self, turns: Sequence[Utterance], speaker: str, emotion: str) -> list[int]:
        """Return a prompt with as many turns as fit, or with the beginning of the last one."""
        model = self._model

        def prompt(context: Sequence[Utterance]) -> list[int]:
            return model.prompts.responder_ids(
                model.engine.tokenizer,
                context,
                speaker,
                [emotion],
                model.labels,
                max_tokens=model.max_prompt_tokens,
            )

        def fits(text: str) -> bool:
            try:
                prompt([Utterance(turns[-1].speaker, text)])
            except PromptTooLong:
                return False
            return True

        try:
            return prompt(responder_context(turns, model.description.context))
        except PromptTooLong:
            target = Target("", max(0, len(turns) - 1), turns[-1] if turns else Utterance("", ""))
            beginning = longest_beginning(target.turn.text, fits) if turns else ""
            if not beginning:
                wordless = replace(target, turn=Utterance(target.turn.speaker, ""))
                raise PromptTooLong(too_long(wordless, model.max_prompt_tokens)) from None
        self.shortened += 1
        return prompt([Utterance(target.turn.speaker, beginning)])

    def _sampling(self, n: int, seed: int) -> Sampling:
        """Return the sampling parameters of a reply."""
        decoding = self._model.description.decoding
        return Sampling(
            n=n,
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            max_tokens=decoding.max_tokens.responder,
            stop=self._model.prompts.stop(Role.RESPONDER),
            seed=seed,
        )

    def _readings(
        self, context: Sequence[Utterance], speaker: str, texts: Sequence[str]
    ) -> list[Reading]:
        """Return the recognizer's reading of each text, as the judge reads a response.

        Parameters
        ----------
        context
            The turns before the reply, oldest first.
        speaker
            The speaker of the reply.
        texts
            The candidates. One that is empty, or too long for a prompt, is not read: it expresses
            nothing.
        """
        past = last_turns(context, self._recognizer.model.description.context.past)
        targets = [Target("", len(context), Utterance(speaker, text), past) for text in texts]
        readable = [t for t in targets if t.turn.text and self._recognizer.fits(t)]
        readings = iter(self._recognizer.read(readable))
        nothing = dict.fromkeys(self._recognizer.labels, 0.0)
        return [next(readings) if t in readable else dict(nothing) for t in targets]


def _top(reading: Reading) -> str:
    """Return the label with the largest probability; of equal ones, the first."""
    return max(reading, key=lambda label: reading[label])
