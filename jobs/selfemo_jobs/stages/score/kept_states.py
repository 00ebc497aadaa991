"""What the layers below the trained ones make of the targets is kept for later generations.

A generation that plays all dialogues reads the same targets as the one before it, with a judge that
differs from the last one in its trained layers at most. The states are in files of the run's
folder. They are a cache: without them a later generation computes the same ones again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from selfemo_api.spec import EvolutionSpec, Role
from selfemo_jobs.engines.interface import KeepsStates
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.store import ObjectNotFound, join
from selfemo_jobs.store.hashing import file_sha256, sha256
from selfemo_jobs.store.local_files import translated_errors

if TYPE_CHECKING:
    from selfemo_jobs.acceleration.prompt_states import PromptStates
    from selfemo_jobs.engines.interface import TextEngine

log = logging.getLogger(__name__)

#: The folder of the states below that of the run.
FOLDER = "prompt-states"
#: The most bytes that a run keeps. MELD's ten thousand utterances in two views take 0.7 GB with a
#: hidden size of 576 in bfloat16.
MOST_BYTES = 2 * 1024**3
#: The number of digits of a file's SHA-256 in its name, as in the names of parts.
_DIGITS = 12


def uses_states(spec: EvolutionSpec) -> bool:
    """Return whether targets are read through states of the layers below the trained ones.

    Parameters
    ----------
    spec
        The spec of the evolution.
    """
    return (
        spec.training.train_layers > 0
        and Role.RECOGNIZER in spec.self_play.roles
        and spec.reward.judge.weight > 0.0
    )


class KeptStates:
    """The states of a run's targets, in its folder.

    Parameters
    ----------
    context
        The context of the stage.
    states
        The states of the judge that is loaded. Those of earlier generations are added to it.
    """

    def __init__(self, context: StageContext, states: PromptStates) -> None:
        self._context = context
        self._folder = join(context.run_uri, FOLDER, states.key)
        self._work = context.work / FOLDER / states.key
        self._size = 0
        self.states = states
        for file in context.store.list(self._folder):
            self._size += file.size
            self._load(file.uri)

    def put(self, part: str) -> None:
        """Write the states that were computed since the last call, if there is room for them.

        Parameters
        ----------
        part
            The name of the part whose targets they are.
        """
        data = self.states.take_new()
        if data is None or not self._is_kept(len(data)):
            return
        digest, stem = sha256(data)[:_DIGITS], part.partition(".")[0]
        name = f"{self._context.config.generation:03d}-{stem}-{digest}"
        self._context.store.put(join(self._folder, name), data)
        self._size += len(data)
        with translated_errors(self._work):
            self._work.mkdir(parents=True, exist_ok=True)
            (self._work / name).write_bytes(data)
        self.states.load(self._work / name)

    def _is_kept(self, size: int) -> bool:
        config, spec = self._context.config, self._context.config.spec
        is_last = config.generation >= spec.stopping.max_generations
        # with a number of dialogues, each generation draws others
        return not is_last and not spec.self_play.dialogues and self._size + size <= MOST_BYTES

    def _load(self, uri: str) -> None:
        """Use the states in a file of the storage. One that is damaged is not used."""
        name = uri.rsplit("/", 1)[-1]
        path, digest = self._work / name, name.rsplit("-", 1)[-1]
        try:
            # an earlier attempt may have fetched it
            if not (path.is_file() and file_sha256(path).startswith(digest)):
                self._context.store.download(uri, path)
        except ObjectNotFound:  # it was removed since
            return
        if file_sha256(path).startswith(digest):
            self.states.load(path)
        else:
            log.warning("%s is damaged: its targets are read again", uri)


def open_kept_states(context: StageContext, engine: TextEngine, tokens: int) -> KeptStates | None:
    """Return the kept states of a run's targets, or None where they are of no use.

    Parameters
    ----------
    context
        The context of the stage.
    engine
        The engine with the judge, which uses them from now on.
    tokens
        The largest number of tokens of a reading. With more than one, states are not enough.
    """
    spec = context.config.spec
    if tokens != 1 or not uses_states(spec) or not isinstance(engine, KeepsStates):
        return None
    states = engine.keep_states(spec.training.train_layers)
    return None if states is None else KeptStates(context, states)
