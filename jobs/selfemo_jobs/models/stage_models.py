"""The models of a stage: the policy and the judge as local folders, and the one that it trained.

This is the one place that decides which hub revision belongs to a model. ``model.revision`` applies
to ``model.uri`` alone. A model that a run has trained is in that run's storage and has no hub
revision. A model that ``resumeFrom`` names was chosen by another run: its revision is the
one that the other run's manifest recorded.
"""

from __future__ import annotations

from pathlib import Path

from selfemo_jobs.models.fetch import fetch_model
from selfemo_jobs.models.model_folder import model_files
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import Part
from selfemo_jobs.store import join
from selfemo_jobs.store.hashing import file_sha256

#: The folder of the trained model below the stage's folder.
MODEL = "model"


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


def upload_model(context: StageContext, folder: Path) -> list[Part]:
    """Upload the files of the model that a stage trained; return them as parts.

    Parameters
    ----------
    context
        The stage's context. The files are stored in :data:`MODEL` below its output.
    folder
        The local folder of the model.
    """
    parts = []
    for path in model_files(folder):
        name = f"{MODEL}/{path.name}"
        context.store.upload(path, join(context.config.output, name))
        parts.append(Part(path=name, sha256=file_sha256(path), size=path.stat().st_size))
    return parts


def _fetch(context: StageContext, uri: str) -> Path:
    model = context.config.spec.model
    revision = model.revision if uri == model.uri else None
    return fetch_model(uri, revision, context.store, context.work)
