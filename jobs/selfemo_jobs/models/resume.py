"""Finds the model that another run's stage made or measured (`spec.resumeFrom`)."""

from __future__ import annotations

from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, read_manifest
from selfemo_jobs.store import Store, join, store_for


def is_manifest(uri: str) -> bool:
    """Return whether a model is given by a manifest."""
    return uri.endswith("/" + MANIFEST)


def model_of(uri: str, store: Store) -> str:
    """Return the URI of the model that a manifest is about.

    A train manifest names the model it made; an evaluate manifest the one it measured, which lies
    in the same storage, or was generation 0's model as given.

    Parameters
    ----------
    uri
        The manifest; in the run's own storage, or another place with the same access.
    store
        The run's store.

    Raises
    ------
    BadInput
        If there is no such manifest, or it is of a stage without a model.
    """
    manifest, _ = read_manifest(store_for(uri, store), uri)
    if manifest.stage is Stage.TRAIN and manifest.model:
        return join(uri.rsplit("/", 1)[0], manifest.model)
    policy = str(manifest.config.get("policyUri", ""))
    if manifest.stage is not Stage.EVALUATE or not policy:
        raise BadInput(
            f"{uri} is of the stage {manifest.stage.value}: `resumeFrom.uri` must be the "
            "`evaluate/manifest.json` or `train/manifest.json` of a generation"
        )
    if policy.startswith("storage:"):
        policy = _storage_of(uri, manifest) + policy.removeprefix("storage:")
    return model_of(policy, store) if is_manifest(policy) else policy


def _storage_of(uri: str, manifest: Manifest) -> str:
    """Return the `storage.uri` that a manifest was written below."""
    below = f"/{manifest.run}/{stage_prefix(manifest.generation, manifest.stage)}/{MANIFEST}"
    if not uri.endswith(below):
        raise BadInput(f"{uri} was moved: it must lie at <storage.uri>{below}")
    return uri.removesuffix(below)
