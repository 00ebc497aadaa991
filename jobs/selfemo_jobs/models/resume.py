"""Where the models of a run are, and the one that another run made (`spec.model.resumeFrom`).

This is the one place that decides which hub revision belongs to a model. ``model.revision`` applies
to ``model.uri`` alone. A model that a run has trained is in that run's storage and has no hub
revision. A model that ``resumeFrom`` names was chosen by another run: its revision is the
one that the other run's manifest recorded.
"""

from __future__ import annotations

import json

from selfemo_api.contract import StageConfig
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import (
    BEST_PATH,
    best_model_uri,
    is_best_manifest,
    model_below,
    parse_best_manifest,
)
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, canonical_json, parse_manifest
from selfemo_jobs.store import ObjectNotFound, Store, join, store_for

#: The record of the model that a best manifest named when a run first read it, in the run's folder.
PINNED = "resumed.json"
_STORAGE = "storage:"


def locate_model(
    config: StageConfig, store: Store, uri: str, *, record: bool = True
) -> tuple[str, str | None]:
    """Return the place of a model of a run, the same one for all stages of the run.

    Parameters
    ----------
    config
        The configuration of the stage.
    store
        The run's store.
    uri
        The model as the configuration names it: its URI, or that of a manifest.
    record
        Whether to record the model that a best manifest names. Otherwise only an earlier record is
        used: Check records a model when it has no problem, and `selfemo check` records none.

    Returns
    -------
    uri : str
        The URI of the model.
    revision : str or None
        Its revision on the hub.

    Raises
    ------
    BadInput
        As :func:`resumed_model` does.
    """
    spec = config.spec
    if not is_manifest(uri):
        return uri, spec.model.revision if uri == spec.model.uri else None
    return pinned_model(uri, store, spec.storage.uri, config.run, record=record)


def is_manifest(uri: str) -> bool:
    """Return whether the URI of a model is that of a manifest."""
    return uri.endswith("/" + MANIFEST)


def resumed_model(uri: str, store: Store) -> tuple[str, str | None]:
    """Return the URI of the model that a manifest is about, and its hub revision.

    The manifest of a training or of a warm start names the model that the stage trained. An
    evaluate manifest names the model that it measured: one in the same storage, or the `model.uri`
    of that run. In the last case the revision is the one that the manifest recorded; a trained
    model has none. A best manifest names the best model of its run.

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
    reached = store_for(uri, store)
    try:
        data = reached.get(uri)
    except ObjectNotFound:
        raise BadInput(_missing(uri)) from None
    if is_best_manifest(data):
        best = parse_best_manifest(data, uri)
        model = best_model_uri(uri, best)
        return resumed_model(model, store) if is_manifest(model) else (model, best.revision)
    manifest = parse_manifest(data, uri)
    if manifest.stage in (Stage.TRAIN, Stage.WARM_START) and manifest.model:
        return model_below(uri.rsplit("/", 1)[0], manifest.model, uri), None
    policy = str(manifest.config.get("policyUri", ""))
    if manifest.stage is not Stage.EVALUATE or not policy:
        raise BadInput(
            f"{uri} belongs to the {manifest.stage.value} stage: `model.resumeFrom` must be the "
            "`evaluate/manifest.json` or `train/manifest.json` of a generation, the "
            f"`warmstart/manifest.json` of generation 0, or the `{BEST_PATH}` of a run"
        )
    if policy.startswith(_STORAGE):
        policy = _storage_of(uri, manifest) + policy.removeprefix(_STORAGE)
    if is_manifest(policy):
        storage = _storage_of(uri, manifest)
        return _read_pin(reached, storage, manifest.run, policy) or resumed_model(policy, store)
    return policy, manifest.config.get("model.revision")


def pinned_model(
    uri: str, store: Store, storage: str, run: str, *, record: bool = True
) -> tuple[str, str | None]:
    """Return the model that a manifest is about, the same one for all stages of a run.

    A best manifest changes when its run promotes another model. The first stage that reads it
    records the model, and all later stages of this run use that record.

    Parameters
    ----------
    uri
        The URI of the manifest.
    store
        The run's store.
    storage
        The URI below which this run has its folder (`storage.uri`).
    run
        The folder of this run below it.
    record
        Whether to record the model if no stage has done so.

    Returns
    -------
    uri : str
        The URI of the model.
    revision : str or None
        Its revision on the hub.

    Raises
    ------
    BadInput
        As :func:`resumed_model` does.
    """
    pin = _read_pin(store, storage, run, uri)
    if pin is not None:
        return pin
    model, revision = resumed_model(uri, store)
    if not record or not uri.endswith("/" + BEST_PATH):  # what another one names never changes
        return model, revision
    root = storage.rstrip("/") + "/"
    place = f"{_STORAGE}/{model.removeprefix(root)}" if model.startswith(root) else model
    content = {"resumeFrom": uri, "model": place, "revision": revision}
    store.put_if_absent(join(storage, run, PINNED), canonical_json(content))
    return _read_pin(store, storage, run, uri) or (model, revision)


def _read_pin(store: Store, storage: str, run: str, uri: str) -> tuple[str, str | None] | None:
    """Return the model that a run has recorded for a manifest, or None."""
    place = join(storage, run, PINNED)
    try:
        record = json.loads(store.get(place))
        resumed, model, revision = record["resumeFrom"], record["model"], record["revision"]
    except ObjectNotFound:
        return None
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{place} is damaged: remove it to read `model.resumeFrom` again") from None
    if resumed != uri:
        return None
    if model.startswith(_STORAGE):
        model = storage.rstrip("/") + model.removeprefix(_STORAGE)
    return model, revision


def _missing(uri: str) -> str:
    if uri.endswith("/" + BEST_PATH):
        return f"{uri} does not exist: that run has no best model yet"
    return f"{uri} does not exist: the stage that writes it has not finished"


def _storage_of(uri: str, manifest: Manifest) -> str:
    """Return the `storage.uri` below which a manifest was written. Raises BadInput."""
    below = f"/{manifest.run}/{stage_prefix(manifest.generation, manifest.stage)}/{MANIFEST}"
    if not uri.endswith(below):
        raise BadInput(f"{uri} was moved: it must lie at <storage.uri>{below}")
    return uri.removesuffix(below)
