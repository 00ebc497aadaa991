"""The model that another run's stage trained or measured (`spec.model.resumeFrom`)."""

from __future__ import annotations

from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, read_manifest
from selfemo_jobs.store import Store, join, store_for


def is_manifest(uri: str) -> bool:
    """Return whether the URI of a model is that of a manifest."""
    return uri.endswith("/" + MANIFEST)


def resumed_model(uri: str, store: Store) -> tuple[str, str | None]:
    """Return the URI of the model that a manifest is about, and its hub revision.

    The manifest of a training or of a warm start names the model that the stage trained. An
    evaluate manifest names the model that it measured: one in the same storage, or the `model.uri`
    of that run. In the last case the revision is the one that the manifest recorded; a trained
    model has none.

    Parameters
    ----------
    uri
        The URI of the manifest. The run's credentials must give access to it.
    store
        The run's store.

    Raises
    ------
    BadInput
        If there is no such manifest, or its stage has no model.
    """
    manifest, _ = read_manifest(store_for(uri, store), uri)
    if manifest.stage in (Stage.TRAIN, Stage.WARM_START) and manifest.model:
        return join(uri.rsplit("/", 1)[0], manifest.model), None
    policy = str(manifest.config.get("policyUri", ""))
    if manifest.stage is not Stage.EVALUATE or not policy:
        raise BadInput(
            f"{uri} is of the stage {manifest.stage.value}: `model.resumeFrom` must be the "
            "`evaluate/manifest.json` or `train/manifest.json` of a generation, or the "
            "`warmstart/manifest.json` of generation 0"
        )
    if policy.startswith("storage:"):
        policy = _storage_of(uri, manifest) + policy.removeprefix("storage:")
    if is_manifest(policy):
        return resumed_model(policy, store)
    return policy, manifest.config.get("model.revision")


def _storage_of(uri: str, manifest: Manifest) -> str:
    """Return the `storage.uri` below which a manifest was written. Raises BadInput."""
    below = f"/{manifest.run}/{stage_prefix(manifest.generation, manifest.stage)}/{MANIFEST}"
    if not uri.endswith(below):
        raise BadInput(f"{uri} was moved: it must lie at <storage.uri>{below}")
    return uri.removesuffix(below)
