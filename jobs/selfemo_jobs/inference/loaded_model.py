"""A model that is loaded by an engine, with its prompts: what both roles share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import Engine
from selfemo_jobs.engines import open_engine
from selfemo_jobs.models.engine_arguments import engine_arguments
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.model_description import prompt_set_of_description
from selfemo_jobs.models.position_limit import check_prompt_tokens
from selfemo_jobs.runtime.closing import Closing

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine


class LoadedModel(Closing):
    """A model with its prompts and an engine. It is a context manager, which frees the model.

    Several threads may use it: :attr:`lock` lets one of them in at a time.

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
    responds
        Whether prompts of the responder have to fit too.

    Raises
    ------
    BadInput
        If a prompt text cannot be used, the engine is not installed or does not have an argument,
        the model cannot read prompts as long as its description allows, or it cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        description: ModelDescription,
        *,
        engine: Engine | None = None,
        engine_args: Mapping[str, Any] | None = None,
        responds: bool = False,
    ) -> None:
        self.description = description
        #: The compiled prompts of both roles.
        self.prompts = prompt_set_of_description(description)
        #: The token ids of the answer with each label alone, as training writes it.
        self.label_answers = self.prompts.label_answers(load_tokenizer(folder), description.labels)
        limits = description.decoding.max_tokens
        longest = max(limits.recognizer, *map(len, self.label_answers))
        if responds:
            longest = max(longest, limits.responder)
        check_prompt_tokens(folder, self.max_prompt_tokens, longest)
        kind = engine or description.decoding.engine
        #: The engine. Use it within :attr:`lock`.
        self.engine: TextEngine = open_engine(
            kind,
            folder,
            engine_args=engine_arguments(description.decoding, kind, engine_args),
            max_model_len=self.max_prompt_tokens + longest,
            seed=0,  # every draw has a seed of its own
        )
        #: Held by the thread that uses the engine.
        self.lock = RLock()

    @property
    def labels(self) -> Sequence[str]:
        """The label set."""
        return self.description.labels

    @property
    def max_prompt_tokens(self) -> int:
        """The most tokens of a prompt."""
        return self.description.prompts.max_prompt_tokens

    def close(self) -> None:
        """Free the model."""
        with self.lock:
            self.engine.close()
