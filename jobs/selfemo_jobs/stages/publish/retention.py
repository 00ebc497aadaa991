"""Removes the models that nothing needs (``storage.keep``). Manifests, tables and reports stay.

This is the last duty: nothing is removed before the best manifest names the best model, and before
the model is copied to ``publish``.

A removal begins with its record (:mod:`selfemo_jobs.models.run_models`) and ends when no file is
left. A killed attempt is therefore completed by the next one, and a program that needs the model
meanwhile gets the reason why it is missing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence

from selfemo_api.contract import RunOutcomes
from selfemo_api.metrics import PublishMetric
from selfemo_api.spec import Keep
from selfemo_api.status import Outcome
from selfemo_jobs.models.best_manifest import BestManifest
from selfemo_jobs.models.run_models import (
    MODEL,
    REMOVED_FILE,
    RemovedModel,
    RunModel,
    parse_run_model,
)
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import MANIFEST, read_manifest
from selfemo_jobs.store import join

log = logging.getLogger(__name__)

_GENERATION = re.compile(r"(?:^|/)generations/(\d{3})/")


def models_to_remove(
    stored: Mapping[int, RunModel],
    outcomes: RunOutcomes,
    keep: Keep,
    generation: int,
    named: Iterable[str] = (),
) -> list[RunModel]:
    """Return the models that nothing needs any more.

    These models stay, whatever ``keep`` is:

    - the best one, and the one that the best manifest names;
    - the baseline's, which may be the judge (``reward.judge.model``), or the start of each
      training (``training.start``) after an edit of the spec;
    - the one that the next generation starts from. After a generation that was continued, it is
      that generation's, even if ``promotion.onRegression`` was edited since;
    - those of generations after the published one: the status was then restored from a backup, and
      these generations are repeated from their manifests.

    Parameters
    ----------
    stored
        The models in the storage, by generation.
    outcomes
        The outcomes of the run. The last one is that of the published generation.
    keep
        The value of ``storage.keep``.
    generation
        The number of the published generation.
    named
        Other URIs that name models of the run.

    Returns
    -------
    list of RunModel
        The models to remove, by generation.
    """
    if keep is Keep.ALL:
        return []
    needed = {outcomes.best.model_uri, outcomes.baseline_uri, outcomes.next_policy_uri, *named}
    last = outcomes.generations[-1]
    if keep is Keep.LAST or last.outcome is Outcome.CONTINUED:
        needed.add(last.model_uri)
    return [
        model
        for number, model in sorted(stored.items())
        if number <= generation and not any(_is_of(uri, model) for uri in needed)
    ]


def _is_of(uri: str, model: RunModel) -> bool:
    """Return whether a URI names the generation of a model, wherever the run's folder is."""
    run = "/".join(model.run_uri.split("/")[-2:])
    match = _GENERATION.search(uri)
    if match is None or int(match[1]) != model.generation:
        return False
    before = uri[: match.start()]
    return before == "" or f"{before}/".endswith(f"/{run}/")


def remove_models(context: StageContext, outcomes: RunOutcomes, best: BestManifest) -> StageOutput:
    """Remove the models that nothing needs.

    Parameters
    ----------
    context
        The context of the stage.
    outcomes
        The outcomes of the run so far.
    best
        The best manifest in the storage.

    Returns
    -------
    StageOutput
        The number of models of the run that are removed by now; no metric with ``keep: All``.

    Raises
    ------
    BadInput
        If files may not be removed.
    Unavailable
        If the storage cannot be reached.
    """
    keep, generation = context.config.spec.storage.keep, context.config.generation
    if keep is Keep.ALL:
        return StageOutput()
    stored, unused, removed = _find_models(context)
    for model in unused:
        count = context.store.remove(model.uri)
        fields = {"model": model.uri, "files": count}
        log.info("removed a model that no manifest names", extra={"fields": fields})
    record = RemovedModel(keep=keep, published=generation)
    for model in models_to_remove(stored, outcomes, keep, generation, named=(best.model,)):
        context.store.put(model.removed_uri, record.encode())
        count = context.store.remove(model.uri)
        removed.add(model.stage_uri)
        fields = {"model": model.uri, "files": count, "keep": keep.value}
        log.info("removed a model", extra={"fields": fields})
    return StageOutput(metrics={PublishMetric.REMOVED_MODELS: float(len(removed))})


def _find_models(
    context: StageContext,
) -> tuple[dict[int, RunModel], list[RunModel], set[str]]:
    """Return the models in the storage by generation, the unused ones, and what is removed.

    A stage whose attempts overlapped may have several models. Its manifest names the one that is
    used.

    Parameters
    ----------
    context
        The context of the stage.

    Returns
    -------
    stored : dict
        The model of each generation.
    unused : list of RunModel
        The models that no manifest names.
    removed : set of str
        The URIs of the stages whose model is removed.
    """
    folders: dict[int, dict[str, RunModel]] = {}
    removed: set[str] = set()
    for info in context.store.list(join(context.run_uri, "generations")):
        folder, _, name = info.uri.rpartition("/")
        model = parse_run_model(folder)
        if model is not None:
            folders.setdefault(model.generation, {})[model.folder] = model
        elif name == REMOVED_FILE and parse_run_model(join(folder, MODEL)) is not None:
            removed.add(folder)
    stored: dict[int, RunModel] = {}
    unused: list[RunModel] = []
    for generation, models in folders.items():
        used = _used_model(context, list(models.values()))
        if used is None:
            continue
        stored[generation] = models.pop(used)
        unused += models.values()
    return stored, unused, removed


def _used_model(context: StageContext, models: Sequence[RunModel]) -> str | None:
    """Return the name of the folder, among those of one stage, that the stage's manifest names.

    None: several attempts have each left a model and no manifest, so no model is known as unused.
    """
    if len(models) == 1:
        return models[0].folder
    uri = join(models[0].stage_uri, MANIFEST)
    if not context.store.exists(uri):
        return None
    manifest, _ = read_manifest(context.store, uri)
    return next((m.folder for m in models if m.folder == manifest.model), None)
