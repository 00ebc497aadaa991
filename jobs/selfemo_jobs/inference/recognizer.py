"""The recognizer: the emotions of each turn of a dialogue, with probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import Engine, MultiLabel
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.text_files import one_line
from selfemo_jobs.engines.interface import Completion, Logprobs, Sampling
from selfemo_jobs.errors import PromptTooLong
from selfemo_jobs.inference.answers import answer_sampling, read_answer
from selfemo_jobs.inference.loaded_model import LoadedModel
from selfemo_jobs.inference.targets import (
    PART_PROMPTS,
    DialogueLike,
    Target,
    dialogue_targets,
    longest_beginning,
    target_prompts,
    too_long,
)
from selfemo_jobs.prompts.sets import Turn
from selfemo_jobs.runtime.closing import Closing

#: The probability of each label, in the order of the label set.
Reading = dict[str, float]


@dataclass(frozen=True)
class Prediction:
    """The emotions of one turn."""

    dialogue_id: str
    """The id of the dialogue."""
    utterance: int
    """The index of the turn in its dialogue, from 0."""
    speaker: str
    """The speaker's name."""
    text: str
    """The words."""
    labels: tuple[str, ...]
    """The labels of the answer, in its order. They are those that the evaluate stage stores as
    predicted. With ``multiLabel: Never`` the first one counts, and is the only one here."""
    probabilities: Reading
    """The probability of each label, in the order of the label set. They sum to 1. Empty if they
    were not requested."""
    answer: str
    """The text of the model's answer."""
    well_formed: bool
    """Whether the answer has label names, each once, and nothing else. If it names none, the label
    is the nearest one."""

    @property
    def label(self) -> str:
        """The first label of the answer."""
        return self.labels[0]


class Recognizer(Closing):
    """A model that recognizes the emotions of dialogues. It is a context manager.

    The labels are those of the model's greedy answer. They equal the predictions of the evaluate
    stage for the same engine and arguments. If a source has turns without labels, which the stage
    leaves out, batches differ. Then the last digits of logits can differ, and in bfloat16 sometimes
    a label.

    The probability of a label is exact. It is the probability that the model's answer is this label
    alone, from the first token to the end, divided by the sum over all labels. It follows from the
    model at temperature 1 and is not sampled. An answer may have several labels. So the label with
    the largest probability is not always the first label of the answer.

    Parameters
    ----------
    folder
        The model's folder.
    description
        The labels, the prompts and the decoding of the model.
    engine
        The engine. None: the one with which the model was evaluated.
    engine_args
        The arguments of the engine. None: those of the evaluation, if it had the same engine.
    model
        The model, if it is loaded already. The folder, the description and the engine are then not
        used.

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
        engine: Engine | None = None,
        engine_args: Mapping[str, Any] | None = None,
        model: LoadedModel | None = None,
    ) -> None:
        self._model = model or LoadedModel(
            folder, description, engine=engine, engine_args=engine_args
        )
        decoding = self._model.description.decoding
        self._sampling = answer_sampling(self._model.prompts, decoding.max_tokens.recognizer)
        self._first_label_only = decoding.multi_label is MultiLabel.NEVER

    @property
    def model(self) -> LoadedModel:
        """The loaded model."""
        return self._model

    @property
    def labels(self) -> Sequence[str]:
        """The label set."""
        return self._model.labels

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn: greedily."""
        return self._sampling

    def prompts(self, targets: Sequence[Target]) -> list[tuple[int, ...]]:
        """Return the token ids of the prompt about each utterance.

        Parameters
        ----------
        targets
            The utterances, each with the turns around it.

        Raises
        ------
        BadInput
            If an utterance is too long for a prompt even without context. The message names it.
        """
        model = self._model
        return target_prompts(
            [_on_one_line(target) for target in targets],
            model.labels,
            model.prompts,
            model.engine.tokenizer,
            model.max_prompt_tokens,
            message=lambda target, _: too_long(target, model.max_prompt_tokens),
        )

    def predict(
        self, dialogues: Sequence[DialogueLike], *, probabilities: bool = True
    ) -> list[Prediction]:
        """Return the emotions of every turn of some dialogues, in order.

        Parameters
        ----------
        dialogues
            The dialogues. An object with ``id`` and ``turns`` is enough, and a turn has ``speaker``
            and ``text``.
        probabilities
            Whether the probabilities are computed. Labels alone are faster.

        Raises
        ------
        BadInput
            If a turn is too long for a prompt even without context. The message names it.
        """
        return list(self.predict_stream(dialogues, probabilities=probabilities))

    def predict_stream(
        self, dialogues: Iterable[DialogueLike], *, probabilities: bool = True
    ) -> Iterator[Prediction]:
        """Yield the emotions of every turn of some dialogues, in order.

        Dialogues are read as they are needed, and about a thousand turns are held at a time.

        Parameters
        ----------
        dialogues
            The dialogues, of any number.
        probabilities
            Whether the probabilities are computed.

        Raises
        ------
        BadInput
            If a turn is too long for a prompt even without context. The message names it.
        """
        context = self._model.description.context
        targets = (target for d in dialogues for target in dialogue_targets(d, context))
        for part in _parts(targets):
            yield from self.predict_targets(part, probabilities=probabilities)

    def predict_turns(
        self, turns: Sequence[Turn], *, probabilities: bool = True
    ) -> list[Prediction]:
        """Return the emotions of each turn of one dialogue.

        Parameters
        ----------
        turns
            The turns in order.
        probabilities
            Whether the probabilities are computed.

        Raises
        ------
        BadInput
            If a turn is too long for a prompt even without context.
        """
        dialogue = Dialogue("", tuple(Utterance(turn.speaker, turn.text) for turn in turns))
        return self.predict([dialogue], probabilities=probabilities)

    def predict_targets(
        self, targets: Sequence[Target], *, probabilities: bool = True
    ) -> list[Prediction]:
        """Return the emotions of some utterances, in order. The engine gets all of them at once.

        Parameters
        ----------
        targets
            The utterances, each with the turns around it.
        probabilities
            Whether the probabilities are computed.

        Raises
        ------
        BadInput
            If an utterance is too long for a prompt even without context. The message names it.
        """
        prompts = self.prompts(targets)
        engine, labels = self._model.engine, self._model.labels
        answers: list[tuple[Completion, Logprobs]]
        with self._model.lock:
            if probabilities:
                answers = engine.generate_and_score(
                    prompts, self._sampling, self._model.label_answers
                )
            else:
                answers = [(group[0], ()) for group in engine.generate(prompts, self._sampling)]
        predictions = []
        for target, (completion, logprobs) in zip(targets, answers, strict=True):
            answer = read_answer(completion.text, labels)
            names = answer.predicted[:1] if self._first_label_only else answer.predicted
            predictions.append(
                Prediction(
                    dialogue_id=target.dialogue_id,
                    utterance=target.utterance,
                    speaker=target.turn.speaker,
                    text=target.turn.text,
                    labels=names,
                    probabilities=reading_of(labels, logprobs) if probabilities else {},
                    answer=completion.text,
                    well_formed=answer.well_formed,
                )
            )
        return predictions

    def fits(self, target: Target) -> bool:
        """Return whether an utterance fits a prompt, at least without context.

        Parameters
        ----------
        target
            The utterance.
        """
        try:
            self.prompts([target])
        except PromptTooLong:
            return False
        return True

    def shorten(self, target: Target) -> Target:
        """Return an utterance with the longest beginning of its words that fits a prompt.

        Parameters
        ----------
        target
            The utterance.

        Raises
        ------
        BadInput
            If the prompt is too long without any word of it.
        """

        def beginning(text: str) -> Target:
            return replace(target, turn=Utterance(target.turn.speaker, text))

        text = longest_beginning(target.turn.text, lambda text: self.fits(beginning(text)))
        self.prompts([beginning(text)])  # raises an error if even this is too long
        return beginning(text)

    def read(self, targets: Sequence[Target]) -> list[Reading]:
        """Return the probability of each label for some utterances. No answer is generated.

        Parameters
        ----------
        targets
            The utterances, each with the turns around it. Equal prompts are read once.

        Raises
        ------
        BadInput
            If an utterance is too long for a prompt even without context. The message names it.
        """
        prompts = self.prompts(targets)
        distinct = list(dict.fromkeys(prompts))
        with self._model.lock:
            scores = self._model.engine.score(distinct, self._model.label_answers)
        readings = [reading_of(self._model.labels, logprobs) for logprobs in scores]
        by_prompt = dict(zip(distinct, readings, strict=True))
        return [dict(by_prompt[prompt]) for prompt in prompts]

    def close(self) -> None:
        """Free the model."""
        self._model.close()


def _parts(targets: Iterator[Target]) -> Iterator[list[Target]]:
    """Yield the targets that the engine gets together."""
    while part := list(islice(targets, PART_PROMPTS)):
        yield part


def reading_of(labels: Sequence[str], logprobs: Sequence[float]) -> Reading:
    """Return the probability of each label, normalized over the labels.

    Parameters
    ----------
    labels
        The label set.
    logprobs
        The natural logarithm of the probability of each label's answer.

    Examples
    --------
    >>> reading_of(["joy", "fear"], [-1000.0, -1000.0])
    {'joy': 0.5, 'fear': 0.5}
    """
    largest = max(logprobs)
    weights = [math.exp(value - largest) for value in logprobs]
    total = math.fsum(weights)
    return {label: weight / total for label, weight in zip(labels, weights, strict=True)}


def _on_one_line(target: Target) -> Target:
    """Return a target as the data formats give it: names and words on one line each."""
    return Target(
        target.dialogue_id,
        target.utterance,
        _turn_on_one_line(target.turn),
        [_turn_on_one_line(turn) for turn in target.past],
        [_turn_on_one_line(turn) for turn in target.future],
    )


def _turn_on_one_line(turn: Turn) -> Utterance:
    return Utterance(one_line(turn.speaker), one_line(turn.text))
