"""The place of ``spec.publish``: what is there, and whether a run may write its model there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from selfemo_api.model_description import CARD_FILE, DESCRIPTION_FILE, ModelDescription
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.description_file import parse_description
from selfemo_jobs.models.hub_upload import LEFT_ALONE
from selfemo_jobs.models.model_copy import description_at, other_files, stored_name
from selfemo_jobs.models.model_description import without_local_paths
from selfemo_jobs.models.model_places import HubFiles
from selfemo_jobs.store import Store, join, objects_below, store_for

_HUB = "hf://"


@dataclass(frozen=True)
class TargetContent:
    """What is at a target."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    """The size of each file in bytes, by its path below the target."""
    description: ModelDescription | None = None
    """The description of the model there. None: there is none, or it cannot be read."""

    def has(self, description: ModelDescription, sizes: Mapping[str, int]) -> bool:
        """Return whether all files of a model are there, with an equal description.

        Parameters
        ----------
        description
            The description, as it is stored there.
        sizes
            The size of each file of the model in bytes, by name.
        """
        is_same = self.description == description and CARD_FILE in self.sizes
        return is_same and all(self.sizes.get(name) == size for name, size in sizes.items())


def read_target(target: str, store: Store) -> TargetContent:
    """Return what is at a target. A target that does not exist is empty.

    Parameters
    ----------
    target
        The URI of ``spec.publish``.
    store
        The run's store, with whose options an ``s3://`` target is read.

    Raises
    ------
    BadInput
        If it may not be read.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    if target.startswith(_HUB):
        return _on_hub(target)
    reached = store_for(target, store)
    sizes = {name: info.size for name, info in objects_below(reached, target).items()}
    described = description_at(reached, join(target, DESCRIPTION_FILE)) if sizes else None
    return TargetContent(sizes, described)


def _on_hub(target: str) -> TargetContent:
    files = HubFiles(target, None)
    try:
        sizes = files.sizes
    except BadInput:
        return TargetContent()  # there is no such repository yet, or the upload gives the reason
    described = None
    if DESCRIPTION_FILE in sizes:
        data = files.start(DESCRIPTION_FILE, max(1, sizes[DESCRIPTION_FILE]))
        try:
            described = parse_description(data, f"{target}/{DESCRIPTION_FILE}")
        except BadInput:
            described = None
    ignored = LEFT_ALONE if described is not None else (*LEFT_ALONE, CARD_FILE)
    return TargetContent({n: s for n, s in sizes.items() if n not in ignored}, described)


def check_replaceable(target: str, content: TargetContent, run: str) -> None:
    """Check that a run may write its model to a target.

    An empty place, and a place with a model of an evolution of the same name, may be written. So an
    evolution that was deleted and made again goes on publishing to the same place.

    Parameters
    ----------
    target
        The URI of ``spec.publish``.
    content
        What is there.
    run
        The folder of the run: ``<namespace>/<name>-<uid8>``.

    Raises
    ------
    BadInput
        If there are other files, or the model of another evolution.
    """
    names, described = sorted(content.sizes), content.description
    if not names:
        return
    others = other_files(names, described)
    if described is None or others:
        name = (others or names)[0]
        raise BadInput(
            f"{target} contains other files ({name}): choose an empty destination, or remove them"
        )
    origin = described.origin
    if origin is None or _evolution(origin.run) != _evolution(run):
        raise BadInput(
            f"{target} contains another model ({stored_name(described)}): choose another "
            "destination, or remove that model"
        )


def check_outside_run(target: str, run_uri: str) -> None:
    """Check that a target and the folder of a run do not contain each other.

    Parameters
    ----------
    target
        The URI of ``spec.publish``.
    run_uri
        The URI of the run's folder.

    Raises
    ------
    BadInput
        If one of them is in the other.
    """
    place, run_folder = target.rstrip("/") + "/", run_uri.rstrip("/") + "/"
    if place.startswith(run_folder) or run_folder.startswith(place):
        raise BadInput(
            f"{target} and the run's folder, {run_uri}, overlap: choose another destination"
        )


def as_stored(description: ModelDescription, target: str) -> ModelDescription:
    """Return a description as it is stored at a target.

    Parameters
    ----------
    description
        The description in the model's folder.
    target
        The URI of ``spec.publish``.
    """
    return without_local_paths(description) if target.startswith(_HUB) else description


def _evolution(run: str) -> str:
    """Return namespace and name of a run's evolution, without the uid."""
    return run.rpartition("-")[0]
