"""The models of a stage: the policy and the judge as local folders, and the one that it trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from selfemo_api.model_description import CARD_FILE, DESCRIPTION_FILE, ModelDescription
from selfemo_jobs.models.description_file import encode_description
from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.model_card import card_text
from selfemo_jobs.models.model_description import describe
from selfemo_jobs.models.model_folder import (
    combined_sha256,
    model_files,
    model_hashes,
    notice_files,
)
from selfemo_jobs.models.model_license import license_of
from selfemo_jobs.models.quantization import refuse_quantized
from selfemo_jobs.models.resume import locate_model
from selfemo_jobs.models.run_models import model_folder_name
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import MANIFEST, Part, read_manifest
from selfemo_jobs.runtime.program import versions
from selfemo_jobs.store import ObjectNotFound, Store, join, object_uri


def fetch_policy(context: StageContext) -> Path:
    """Return the folder of the model that plays, is trained, or is evaluated.

    Parameters
    ----------
    context
        The stage's context: its configuration names the model, its store reads ``s3://`` URIs, and
        its scratch folder takes the copy.

    Raises
    ------
    BadInput
        If there is no such model, it may not be read, or it is not whole.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    return _fetch(context, context.config.policy_uri)


def fetch_judge(context: StageContext) -> Path:
    """Return the folder of the frozen model that scores, and that the KL term refers to.

    Parameters and errors are those of :func:`fetch_policy`.
    """
    return _fetch(context, context.config.judge_uri)


def fetch_baseline(context: StageContext) -> Path:
    """Return the folder of the baseline's model. In generation 0 it is the policy.

    Parameters and errors are those of :func:`fetch_policy`.
    """
    return _fetch(context, context.config.baseline_uri or context.config.policy_uri)


def upload_model(
    context: StageContext, folder: Path, policy: Path, inputs: Mapping[str, str]
) -> StageOutput:
    """Upload the model that a stage trained and its description; return the stage's output.

    The description and the card are not among the parts: they are written again when the model is
    evaluated.

    Parameters
    ----------
    context
        The stage's context. The files are stored in a folder below its output, whose name has the
        hash of the model.
    folder
        The local folder of the model. It may be that of the policy.
    policy
        The folder of the model that was trained, whose license the new one has.
    inputs
        The hashes of what the model was trained from.

    Returns
    -------
    StageOutput
        The files and the URI of the model.
    """
    hashes = model_hashes(folder)
    name = model_folder_name(combined_sha256(hashes))
    uri = join(context.config.output, name)
    parts = []
    for path in model_files(folder):
        context.store.upload(path, object_uri(uri, path.name))
        part = f"{name}/{path.name}"
        parts.append(Part(path=part, sha256=hashes[path.name], size=path.stat().st_size))
    for path in notice_files(folder):  # not a part: no result follows from it
        context.store.upload(path, object_uri(uri, path.name))
    _describe(context, uri, hashes, license_of(policy, context.config.spec.model.uri))
    return StageOutput(parts=parts, model_uri=uri, inputs=dict(inputs))


def _describe(
    context: StageContext, model_uri: str, weights: dict[str, str], license_id: str
) -> None:
    """Write the description of a model that a stage trained, unless it has scores by now.

    A stage that has a manifest has ended, and the same model may have been evaluated since. This is
    then an attempt that was believed to be dead.
    """
    config, store = context.config, context.store
    uri = join(model_uri, DESCRIPTION_FILE)
    try:
        stored = store.get(uri)
    except ObjectNotFound:
        stored = None
    ended = store.exists(join(config.output, MANIFEST)) and not config.repair
    if stored is not None and ended:
        return
    description = describe(
        config,
        weights=weights,
        parents={slug: read_manifest(store, uri)[1] for slug, uri in config.parents.items()},
        versions=versions(),
        license=license_id,
    )
    store.put(join(model_uri, CARD_FILE), card_text(description).encode())
    store.replace(uri, encode_description(description), stored)


def put_description(store: Store, model_uri: str, description: ModelDescription) -> None:
    """Write the description and the card of a stored model, replacing earlier ones.

    Parameters
    ----------
    store
        A store that reaches the model.
    model_uri
        The URI of the model's folder, which belongs to a run.
    description
        The description.
    """
    store.put(join(model_uri, CARD_FILE), card_text(description).encode())
    store.put(join(model_uri, DESCRIPTION_FILE), encode_description(description))


def _fetch(context: StageContext, uri: str) -> Path:
    uri, revision = locate_model(context.config, context.store, uri)
    folder = fetch_model(uri, revision, context.store, context.work)
    refuse_quantized(folder, uri)
    return folder
