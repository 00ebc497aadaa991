"""Opens a model for a command: its recognizer, and its responder with the judge of replies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.inference import Prediction, Recognizer, Reply, Responder, Target
from selfemo_jobs.inference.responses import last_turns
from selfemo_jobs.models.model_reference import ResolvedModel
from selfemo_jobs.use_commands.use_options import EngineSettings


@contextmanager
def open_responder(
    model: ResolvedModel,
    engine: EngineSettings,
    judge: tuple[ResolvedModel, EngineSettings] | None = None,
) -> Iterator[Responder]:
    """Yield the responder of a model, and free what was loaded at the end.

    Parameters
    ----------
    model
        The folder and the description of the model.
    engine
        The engine that runs it.
    judge
        The model that reads the replies, and its engine. None: the same model.
    """
    with ExitStack() as stack:
        recognizer = None
        if judge is not None:
            (folder, description), settings = judge
            recognizer = stack.enter_context(Recognizer(folder, description, **settings._asdict()))
        yield stack.enter_context(
            Responder(model.folder, model.description, recognizer=recognizer, **engine._asdict())
        )


class Roles:
    """Both roles of a model in a conversation of two speakers.

    Parameters
    ----------
    responder
        The responder. Its recognizer reads the turns.
    """

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._context = responder.recognizer.model.description.context

    def read(self, turns: Sequence[Utterance]) -> Prediction:
        """Return the emotions of the last turn.

        Parameters
        ----------
        turns
            The turns so far, oldest first.
        """
        past = last_turns(turns[:-1], self._context.past)
        target = Target("", len(turns) - 1, turns[-1], past)
        return self._responder.recognizer.predict_targets([target])[0]

    def reply(self, turns: Sequence[Utterance], speaker: str, emotion: str, seed: int) -> Reply:
        """Return a reply.

        Parameters
        ----------
        turns
            The turns so far, oldest first.
        speaker
            The speaker of the reply.
        emotion
            The label that it is to express.
        seed
            The seed of the draws.
        """
        return self._responder.reply(turns, speaker, emotion, seed=seed)[0]


@contextmanager
def open_roles(model: ResolvedModel, engine: EngineSettings) -> Iterator[Roles]:
    """Yield both roles of a model, and free it at the end.

    Parameters
    ----------
    model
        The folder and the description of the model.
    engine
        The engine that runs it.
    """
    with open_responder(model, engine) as responder:
        yield Roles(responder)
