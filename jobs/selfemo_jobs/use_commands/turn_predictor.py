"""Predicts turns with the recognizer of a model, which is loaded when it is needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from selfemo_jobs.errors import PromptTooLong
from selfemo_jobs.models.model_reference import ResolvedModel
from selfemo_jobs.runtime.closing import Closing
from selfemo_jobs.use_commands.prediction_rows import PredictedTurn
from selfemo_jobs.use_commands.use_options import EngineSettings

if TYPE_CHECKING:
    from selfemo_jobs.inference import Recognizer, Target


class TurnPredictor(Closing):
    """A function that predicts turns. It is a context manager, which frees the model at its end.

    Parameters
    ----------
    model
        The folder and the description of the model.
    engine
        The engine that runs it.
    probabilities
        Whether the probability of each label is computed.
    """

    def __init__(
        self, model: ResolvedModel, engine: EngineSettings, *, probabilities: bool
    ) -> None:
        self._model = model
        self._engine = engine
        self._probabilities = probabilities
        self._recognizer: Recognizer | None = None
        self._shortened = 0
        self._first_shortened = ""
        #: The time that the model took to load, in seconds.
        self.load_seconds = 0.0

    def close(self) -> None:
        """Free the model, if it was loaded."""
        if self._recognizer is not None:
            self._recognizer.close()

    def load(self) -> Recognizer:
        """Return the recognizer. It is loaded by the first call."""
        if self._recognizer is None:
            from selfemo_jobs.inference import Recognizer

            start = time.monotonic()
            self._recognizer = Recognizer(
                self._model.folder, self._model.description, **self._engine._asdict()
            )
            self.load_seconds = time.monotonic() - start
        return self._recognizer

    def __call__(self, targets: Sequence[Target]) -> list[PredictedTurn]:
        """Return the predicted turn of each target, in order.

        Parameters
        ----------
        targets
            The turns. The engine gets all of them at once. Of a turn that is too long for a prompt,
            it gets the beginning.
        """
        recognizer = self.load()
        try:
            predictions = recognizer.predict_targets(targets, probabilities=self._probabilities)
        except PromptTooLong:
            shown = [t if recognizer.fits(t) else self._shorten(t) for t in targets]
            predictions = recognizer.predict_targets(shown, probabilities=self._probabilities)
        return [
            PredictedTurn(
                dialogue=prediction.dialogue_id,
                turn=prediction.utterance,
                speaker=prediction.speaker,
                text=target.turn.text,
                labels=prediction.labels,
                probabilities=prediction.probabilities if self._probabilities else None,
            )
            for target, prediction in zip(targets, predictions, strict=True)
        ]

    def warnings(self) -> list[str]:
        """Return what was odd about the turns so far."""
        if not self._shortened:
            return []
        most = self._model.description.prompts.max_prompt_tokens
        return [
            f"turns that are longer than this model's prompt limit of {most} tokens: "
            f"{self._shortened} (first: {self._first_shortened}); only their beginnings were read"
        ]

    def _shorten(self, target: Target) -> Target:
        """Return a target whose turn fits a prompt, and count it."""
        self._shortened += 1
        self._first_shortened = self._first_shortened or (
            f"dialogue {target.dialogue_id} turn {target.utterance}"
        )
        return self.load().shorten(target)
