"""Writes ``<run>/best/manifest.json``, which names the best model at an address that never changes.

The file is replaced as a whole, only over the bytes that were read, and never over the file that a
later generation wrote. So there is a usable best at any moment, and a slow pod of an earlier
generation does not bring back an older one.

It comes after the scores, since it names a model that has to describe itself, and before the
removal of models, so that it never names a model that was removed.
"""

from __future__ import annotations

import logging

from selfemo_api.results import SourceScore
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.status import Best
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.models.best_manifest import (
    BestManifest,
    best_uri,
    parse_best_manifest,
    relative_model,
)
from selfemo_jobs.models.model_description import describe_spec, with_scores
from selfemo_jobs.models.resume import locate_model
from selfemo_jobs.models.run_models import RunModel, check_not_removed, parse_run_model
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import MANIFEST, read_manifest
from selfemo_jobs.runtime.stage_prompts import fetch_prompts
from selfemo_jobs.store import ObjectNotFound, join, object_uri

log = logging.getLogger(__name__)

#: How often the file is read again, because another writer replaced it since.
_TRIES = 20


def update_best(context: StageContext, best: Best) -> BestManifest:
    """Write the best manifest, unless it is right already or a later generation wrote it.

    Parameters
    ----------
    context
        The context of the stage.
    best
        The best generation.

    Returns
    -------
    BestManifest
        The manifest that is in the storage now.

    Raises
    ------
    BadInput
        If a manifest of the best generation is missing or damaged.
    Unavailable
        If the storage cannot be reached, or other writers replace the file again and again.
    """
    store, uri = context.store, best_uri(context.run_uri)
    new = _best_manifest(context, best)
    for _ in range(_TRIES):
        data, stored = _stored(context, uri)
        if stored is not None and stored.published > new.published:
            log.warning(
                "generation %d wrote %s: it stays as it is", stored.published, uri
            )  # this attempt is a late one, or the status was restored from a backup
            return stored
        if stored is not None and _names_the_same(stored, new):
            return stored
        if not _is_whole(context, best.model_uri):
            if stored is None:
                check_not_removed(best.model_uri, store)
            else:
                log.warning("%s was removed: %s stays as it is", best.model_uri, uri)
                return stored
        if store.replace(uri, new.encode(), data):
            fields = {"generation": new.generation, "model": new.model}
            log.info("the best model", extra={"fields": fields})
            return new
    raise Unavailable(f"{uri}: other writers replaced it {_TRIES} times; run the command again")


def own_model(context: StageContext, uri: str) -> RunModel | None:
    """Return the model of this run that a URI names, or None if another one made it.

    Parameters
    ----------
    context
        The context of a stage of the run.
    uri
        The URI of a model's folder.
    """
    model = parse_run_model(uri)
    return model if model is not None and model.run_uri == context.run_uri else None


def _stored(context: StageContext, uri: str) -> tuple[bytes | None, BestManifest | None]:
    """Return the bytes and the content of the stored file, as far as it has them."""
    try:
        data = context.store.get(uri)
    except ObjectNotFound:
        return None, None
    try:
        return data, parse_best_manifest(data, uri)
    except BadInput as error:
        log.warning("%s: it is written again", error)
        return data, None


def _is_whole(context: StageContext, uri: str) -> bool:
    """Return whether a model may be named: the run did not make it, or it was not removed.

    An attempt of another past, before the status was restored from a backup, may name one that was.
    """
    model, store = own_model(context, uri), context.store
    if model is None or not store.exists(model.removed_uri):
        return True
    stored = {info.uri for info in store.list(model.uri)}
    parts = read_manifest(store, join(model.stage_uri, MANIFEST))[0].parts
    return all(object_uri(model.stage_uri, part.path) in stored for part in parts)


def _names_the_same(stored: BestManifest, new: BestManifest) -> bool:
    """Return whether two manifests name the same model with the same evaluation.

    The file then stays as it is, for the programs that follow it.
    """
    names = ("generation", "f1", "model", "revision", "evaluation_sha256", "training_sha256")
    return all(getattr(stored, name) == getattr(new, name) for name in names)


def _best_manifest(context: StageContext, best: Best) -> BestManifest:
    """Return the manifest of the best generation. Raises BadInput and Unavailable."""
    config, store, run_uri = context.config, context.store, context.run_uri
    evaluate = join(run_uri, stage_prefix(best.generation, Stage.EVALUATE), MANIFEST)
    evaluation, evaluation_sha256 = read_manifest(store, evaluate)
    manifest = BestManifest(
        run=config.run,
        generation=best.generation,
        published=config.generation,
        f1=best.f1,
        model=relative_model(run_uri, best.model_uri),
        evaluation_sha256=evaluation_sha256,
    )
    model = own_model(context, best.model_uri)
    if model is not None:
        training_sha256 = read_manifest(store, join(model.stage_uri, MANIFEST))[1]
        return manifest.model_copy(update={"training_sha256": training_sha256})
    return _of_base_model(context, manifest, best.model_uri, evaluation.scores)


def _of_base_model(
    context: StageContext, manifest: BestManifest, model_uri: str, scores: list[SourceScore]
) -> BestManifest:
    """Return the manifest of a model that the run did not make: it needs a description."""
    config = context.config
    uri, revision = locate_model(config, context.store, model_uri)
    spec = fetch_prompts(config, context.store).config.spec
    changes = {
        "model": uri,
        "revision": revision,
        "description": with_scores(describe_spec(spec), scores),
    }
    return manifest.model_copy(update=changes)
