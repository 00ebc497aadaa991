"""Writes the scores of a generation into its model's description and card.

This is the first duty: what the best manifest names, and what is copied elsewhere, must have its
scores by then.
"""

from __future__ import annotations

import logging

from selfemo_api.model_description import DESCRIPTION_FILE
from selfemo_api.results import SourceScore
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.models.description_file import encode_description, parse_description
from selfemo_jobs.models.model_description import with_scores
from selfemo_jobs.models.run_models import parse_run_model
from selfemo_jobs.models.stage_models import put_description
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import MANIFEST, read_manifest
from selfemo_jobs.store import ObjectNotFound, join

log = logging.getLogger(__name__)


def add_scores(context: StageContext) -> None:
    """Write the scores of the generation, and the baseline's, into its model's folder.

    Nothing is written for a model that this generation did not train: a base model belongs to
    its user, and a model of an earlier generation has its own scores. A generation that collapsed
    before its evaluation has no scores.

    Parameters
    ----------
    context
        The context of the stage. Its policy is the model of the generation.

    Raises
    ------
    BadInput
        If the description, or the manifest of the evaluation, is damaged.
    Unavailable
        If the storage cannot be reached.
    """
    config, store = context.config, context.store
    evaluate = config.parents.get(Stage.EVALUATE.slug)
    model = parse_run_model(config.policy_uri)
    if evaluate is None or model is None:
        return
    if (model.run_uri, model.generation) != (context.run_uri, config.generation):
        return
    uri = join(model.uri, DESCRIPTION_FILE)
    try:
        data = store.get(uri)
    except ObjectNotFound:  # an earlier attempt came as far as the removal of models
        log.info("%s is not there: the scores are not added", uri)
        return
    scores = read_manifest(store, evaluate)[0].scores
    description = with_scores(
        parse_description(data, uri), scores, _baseline_scores(context, scores)
    )
    if encode_description(description) != data:
        put_description(store, model.uri, description)


def _baseline_scores(context: StageContext, scores: list[SourceScore]) -> list[SourceScore]:
    """Return the baseline's scores on the same sources; none if the model is the baseline."""
    config = context.config
    if config.generation == 0:
        return []
    uri = join(context.run_uri, stage_prefix(0, Stage.EVALUATE), MANIFEST)
    if not context.store.exists(uri):
        return []
    sources = {score.source for score in scores}
    return [s for s in read_manifest(context.store, uri)[0].scores if s.source in sources]
