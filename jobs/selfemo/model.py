"""A model, by reference, and what it can do."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo.errors import require, translated_errors
from selfemo_api.contract import ENV_DATA
from selfemo_operator.cli.run_options import volume_folder

if TYPE_CHECKING:
    from selfemo_api.model_description import ModelDescription
    from selfemo_jobs.models.model_reference import ResolvedModel


class Model:
    """A model, which is fetched and checked when it is first used.

    Parameters
    ----------
    reference
        A folder or a URI of a model (``file://``, ``s3://``, ``hf://``, ``package://``), a
        ``manifest.json``, the folder of a run, or the YAML file of an evolution.
    labels
        The label set of a model that selfemo did not make.
    revision
        The revision of a model on the hub.
    generation
        The generation of an evolution. None: the best one.
    state
        The folder in which runs store their state, as `selfemo run --state`.
    data
        The folder of each data volume, by the volume's name, for a model with ``data://``.

    Raises
    ------
    TypeError
        If the labels are one text.
    """

    def __init__(
        self,
        reference: str | Path,
        *,
        labels: Sequence[str] = (),
        revision: str | None = None,
        generation: int | None = None,
        state: str | Path = ".selfemo",
        data: Mapping[str, str | Path] | None = None,
    ) -> None:
        given: object = labels  # a caller without a type checker may pass one text
        if isinstance(given, str):
            raise TypeError("the labels of a model must be a list, not a string")
        self.reference = str(reference)
        self._labels, self._revision = tuple(labels), revision
        self._generation, self._state = generation, Path(state)
        self._data = dict(data or {})

    @property
    def folder(self) -> Path:
        """The folder of the model on this machine.

        Raises
        ------
        BadInput
            If there is no such model, or its files are damaged.
        Unavailable
            If the storage or the hub cannot be reached.
        """
        return self._resolved.folder

    @property
    def description(self) -> ModelDescription:
        """The labels, prompts, decoding, origin and scores of the model. Raises as `folder`."""
        return self._resolved.description

    @property
    def labels(self) -> list[str]:
        """The label set, in the order of all probabilities. Raises as `folder`."""
        return list(self.description.labels)

    @cached_property
    def _resolved(self) -> ResolvedModel:
        require("selfemo.Model", "jobs")
        from selfemo_jobs.models.model_reference import ReferenceOptions, resolve_model

        options = ReferenceOptions(
            labels=self._labels,
            revision=self._revision,
            generation=self._generation,
            state=self._state,
        )
        with translated_errors(), _data_volumes(self._data):
            return resolve_model(self.reference, options)

    def __repr__(self) -> str:
        """Return the call that makes the model."""
        generation = "" if self._generation is None else f", generation={self._generation}"
        return f"Model({self.reference!r}{generation})"


#: Held while the environment has the folders of one model: another thread's model has others.
_VOLUMES = threading.RLock()


@contextmanager
def _data_volumes(folders: Mapping[str, str | Path]) -> Iterator[None]:
    """Return a context in which ``data://`` URIs are looked up in some folders first.

    One thread at a time is in it.
    """
    pairs = [f"{name}={volume_folder(Path(f), f'data[{name!r}]')}" for name, f in folders.items()]
    with _VOLUMES:
        previous = os.environ.get(ENV_DATA)
        os.environ[ENV_DATA] = ":".join(filter(None, [*pairs, previous]))
        try:
            yield
        finally:
            if previous is None:
                del os.environ[ENV_DATA]
            else:
                os.environ[ENV_DATA] = previous


def as_model(model: str | Path | Model) -> Model:
    """Return a model, or the one that a reference names.

    Parameters
    ----------
    model
        The model or its reference.
    """
    return model if isinstance(model, Model) else Model(model)
