"""Copies the best model to ``spec.publish``.

It comes after the best manifest: if a later generation wrote that, this attempt copies nothing. It
comes before the removal of models, which a failed copy therefore never reaches: the best model and
all others are still there when the cause is fixed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selfemo_api.metrics import PublishMetric
from selfemo_api.model_description import DESCRIPTION_FILE
from selfemo_api.status import Best
from selfemo_jobs.errors import BadInput, DamagedFiles
from selfemo_jobs.models.best_manifest import BestManifest, relative_model
from selfemo_jobs.models.description_file import parse_description
from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.model_copy import copy_model
from selfemo_jobs.models.publish_target import (
    as_stored,
    check_outside_run,
    check_replaceable,
    read_target,
)
from selfemo_jobs.models.run_models import RunModel, check_not_removed
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import MANIFEST, read_manifest
from selfemo_jobs.stages.publish.best import own_model
from selfemo_jobs.store import ObjectNotFound, join

log = logging.getLogger(__name__)


def copy_best(context: StageContext, best: Best, stored: BestManifest) -> StageOutput:
    """Copy the best model to ``spec.publish``, unless it is there.

    A base model is not copied: the run has not made it.

    Parameters
    ----------
    context
        The context of the stage.
    best
        The best generation.
    stored
        The best manifest in the storage.

    Returns
    -------
    StageOutput
        The number of files that the copy has; no metric without ``spec.publish``.

    Raises
    ------
    BadInput
        If the model may not be written there, or something else is there.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    target = context.config.spec.publish
    if target is None:
        return StageOutput()
    model = own_model(context, best.model_uri)
    if model is None:
        return _copied(0)
    if stored.model != relative_model(context.run_uri, model.uri):
        log.warning("generation %d is the best by now: nothing is copied", stored.generation)
        return _copied(0)
    return _copied(_copy(context, model, target))


def _copy(context: StageContext, model: RunModel, target: str) -> int:
    """Copy a model unless it is there; return the number of its files."""
    uri, manifest_uri = join(model.uri, DESCRIPTION_FILE), join(model.stage_uri, MANIFEST)
    try:
        description = parse_description(context.store.get(uri), uri)
    except ObjectNotFound:
        check_not_removed(model.uri, context.store)
        raise DamagedFiles(
            f"{uri} is missing", manifest_uri, "restore it, or remove `publish`"
        ) from None
    parts, start = read_manifest(context.store, manifest_uri)[0].parts, f"{model.folder}/"
    files = {p.path.removeprefix(start): p for p in parts if p.path.startswith(start)}
    sizes = {name: files[name].size for name in description.weights_sha256 if name in files}
    with _named():
        check_outside_run(target, context.run_uri)
        content = read_target(target, context.store)
        if content.has(as_stored(description, target), sizes):
            log.info("%s has the best model already", target)
            return len(description.weights_sha256) + 2
        check_replaceable(target, content, context.config.run)
    folder = fetch_model(model.uri, None, context.store, context.work)
    with _named():
        # what is uploaded by mistake cannot be taken back: a person makes a repository public
        copied = copy_model(
            folder, target, description, store=context.store, overwrite=True, private=True
        )
    shutil.rmtree(context.work / "models", ignore_errors=True)  # what was fetched from S3
    fields = {"generation": model.generation, "to": target, "files": copied.written}
    log.info("copied the best model", extra={"fields": fields})
    return copied.files


def _copied(files: int) -> StageOutput:
    return StageOutput(metrics={PublishMetric.COPIED_FILES: float(files)})


@contextmanager
def _named() -> Iterator[None]:
    """Return a context whose problems name the field in which a person fixes them."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"`publish`: {error}") from error
