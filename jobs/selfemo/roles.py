"""The two roles of a model: the recognizer names emotions, the responder expresses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from selfemo.errors import require
from selfemo.model import Model, as_model
from selfemo.turns import Dialogue, Turn, Turns, utterances
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.closing import Closing

if TYPE_CHECKING:
    from selfemo_jobs import inference
    from selfemo_jobs.inference import Prediction, Reply


class Recognizer(Closing):
    """A model that recognizes the emotion of each turn of a dialogue. It is a context manager.

    Parameters
    ----------
    model
        The model, or its reference as of :class:`Model`.
    engine
        The engine, ``Transformers`` or ``VLLM``. None: the one with which the model was evaluated.
    engine_args
        The arguments of the engine, as in `selfPlay.engineArgs`. None: those of the evaluation.

    Raises
    ------
    MissingExtra
        If the libraries of the jobs are not installed.
    BadInput
        If there is no such model, or it cannot be loaded.
    Unavailable
        If the storage or the hub cannot be reached.
    """

    def __init__(
        self,
        model: str | Path | Model,
        *,
        engine: Literal["Transformers", "VLLM"] | None = None,
        engine_args: Mapping[str, Any] | None = None,
    ) -> None:
        require("selfemo.Recognizer", "jobs")
        from selfemo_api.spec import Engine
        from selfemo_jobs import inference

        self._model = as_model(model)
        self._inner: inference.Recognizer = inference.Recognizer(
            self._model.folder,
            self._model.description,
            engine=Engine(engine) if engine else None,
            engine_args=engine_args,
        )

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    @property
    def labels(self) -> list[str]:
        """The label set, in the order of all probabilities."""
        return self._model.labels

    @overload
    def predict(self, source: str, *, probabilities: bool = True) -> Prediction: ...

    @overload
    def predict(self, source: Turns, *, probabilities: bool = True) -> list[Prediction]: ...

    @overload
    def predict(
        self, source: Sequence[Dialogue], *, probabilities: bool = True
    ) -> list[list[Prediction]]: ...

    def predict(
        self, source: str | Turns | Sequence[Dialogue], *, probabilities: bool = True
    ) -> Prediction | list[Prediction] | list[list[Prediction]]:
        """Return the emotions of a text, of the turns of a dialogue, or of several dialogues.

        A turn is a text, which may begin with ``Speaker: ``, a pair ``(speaker, text)``, or a
        :class:`Turn`.

        Parameters
        ----------
        source
            A text: one turn without context. A list of turns: one dialogue. A list of
            :class:`Dialogue`: several.
        probabilities
            Whether the probability of each label is computed. Labels alone are faster.

        Returns
        -------
        Prediction, or a list, or a list of lists
            The prediction of the text; of each turn; of each turn of each dialogue.

        Raises
        ------
        BadInput
            If a turn is empty, or too long for a prompt even without context.
        """
        if isinstance(source, str):
            return self._predict_dialogue([source], "", probabilities)[0]
        if isinstance(source, Turn | Dialogue):
            raise TypeError(f"expected a list, not a single {type(source).__name__}")
        entries = list(source)  # an iterator can be read only once
        dialogues = [entry for entry in entries if isinstance(entry, Dialogue)]
        if not dialogues:
            return self._predict_dialogue(entries, "", probabilities)  # type: ignore[arg-type]
        if len(dialogues) < len(entries):
            raise TypeError("either all entries must be dialogues, or none")
        return self._predict_dialogues(dialogues, probabilities)

    def _predict_dialogue(self, turns: Turns, name: str, probabilities: bool) -> list[Prediction]:
        return self._predict_dialogues([Dialogue(turns, name)], probabilities)[0]

    def _predict_dialogues(
        self, dialogues: Sequence[Dialogue], probabilities: bool
    ) -> list[list[Prediction]]:
        """Return the predictions of each dialogue. The engine gets all turns together."""
        from selfemo_jobs.datasets.dialogue import Dialogue as ReadDialogue

        read = [ReadDialogue(d.id, tuple(utterances(d.turns))) for d in dialogues]
        predictions = iter(self._inner.predict(read, probabilities=probabilities))
        return [[next(predictions) for _ in dialogue.turns] for dialogue in read]

    def close(self) -> None:
        """Free the model."""
        self._inner.close()


class Responder(Closing):
    """A model that replies to a dialogue with an emotion. It is a context manager.

    Parameters
    ----------
    model
        The model, or its reference as of :class:`Model`.
    judge
        Reads the replies. It stays open when the responder is closed. None: the same model.
    engine
        The engine, ``Transformers`` or ``VLLM``. None: the one with which the model was evaluated.
    engine_args
        The arguments of the engine, as in `selfPlay.engineArgs`. None: those of the evaluation.

    Raises
    ------
    MissingExtra
        If the libraries of the jobs are not installed.
    BadInput
        If there is no such model, or it cannot be loaded.
    Unavailable
        If the storage or the hub cannot be reached.
    """

    def __init__(
        self,
        model: str | Path | Model,
        *,
        judge: Recognizer | None = None,
        engine: Literal["Transformers", "VLLM"] | None = None,
        engine_args: Mapping[str, Any] | None = None,
    ) -> None:
        require("selfemo.Responder", "jobs")
        from selfemo_api.spec import Engine
        from selfemo_jobs import inference

        self._model = as_model(model)
        self._inner: inference.Responder = inference.Responder(
            self._model.folder,
            self._model.description,
            recognizer=judge._inner if judge is not None else None,
            engine=Engine(engine) if engine else None,
            engine_args=engine_args,
        )

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    @property
    def labels(self) -> list[str]:
        """The emotions that a reply may express."""
        return self._model.labels

    def reply(
        self,
        turns: Turns,
        *,
        emotion: str,
        speaker: str | None = None,
        n: int = 1,
        seed: int = 0,
    ) -> list[Reply]:
        """Return candidates of the next turn of a dialogue, each with the judge's reading.

        Parameters
        ----------
        turns
            The turns so far, as :meth:`Recognizer.predict` takes them. The last one is answered.
        emotion
            The emotion that the reply is to express: a label.
        speaker
            The name of the speaker who replies. None: the last speaker before the one who spoke
            last.
        n
            The number of candidates, at least 1.
        seed
            The seed of the draws. The same arguments give the same candidates.

        Raises
        ------
        BadInput
            If the emotion is not a label, a turn is empty, or there is no turn.
        """
        from selfemo_jobs.inference.responses import reply_speaker

        context = utterances(turns)
        if not context:
            raise BadInput("a reply requires at least one turn to respond to")
        return self._inner.reply(
            context, speaker or reply_speaker(context), emotion, n=n, seed=seed
        )

    def close(self) -> None:
        """Free the model."""
        self._inner.close()
