"""The place of a model that a reference names."""

from __future__ import annotations

from dataclasses import dataclass

from selfemo_api.model_description import ModelDescription
from selfemo_api.results import SourceScore
from selfemo_jobs.store import Store


@dataclass(frozen=True)
class ModelLocation:
    """The place of a model, before it is copied to this machine."""

    uri: str
    """The URI of the model's folder."""
    revision: str | None
    """The revision of a model on the hub."""
    store: Store
    """A store with the options with which the model is read."""
    description: ModelDescription | None = None
    """What is known about a model whose folder has no description: from its run, if it has one."""
    scores: tuple[SourceScore, ...] = ()
    """The scores of the model in the manifest that named it. Empty: they are not known."""
