"""The models that the stages of a run wrote: their places, and the record of a removed one.

The record of a removal, ``removed.json``, is beside the stage's manifest and not in the model's
folder. So it is written before the removal begins, and the whole folder can be removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, ValidationError

from selfemo_api.api_model import ApiModel
from selfemo_api.spec import Keep
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import best_uri
from selfemo_jobs.runtime.manifest import MANIFEST, NAME_DIGITS, canonical_json
from selfemo_jobs.runtime.run_reader import REPORT_FILE
from selfemo_jobs.store import ObjectNotFound, Store, join, store_for

#: The name of the record of a removed model, in the folder of its stage.
REMOVED_FILE = "removed.json"
_STAGES = {stage.slug: stage for stage in (Stage.WARM_START, Stage.TRAIN)}
#: The start of the name of a model's folder. The hash of the model follows; runs of an earlier
#: version have no hash there.
MODEL = "model"
_MODEL = re.compile(
    rf"/generations/(\d{{3}})/({'|'.join(_STAGES)})/({MODEL}(?:-[0-9a-f]{{{NAME_DIGITS}}})?)$"
)


@dataclass(frozen=True)
class RunModel:
    """A model that a stage of a run wrote."""

    run_uri: str
    """The URI of the run's folder."""
    generation: int
    """The number of the generation."""
    stage: Stage
    """The stage: WarmStart or Train."""
    folder: str = MODEL
    """The name of the model's folder below the stage's folder."""

    @property
    def stage_uri(self) -> str:
        """The URI of the stage's folder."""
        return join(self.run_uri, stage_prefix(self.generation, self.stage))

    @property
    def uri(self) -> str:
        """The URI of the model's folder."""
        return join(self.stage_uri, self.folder)

    @property
    def removed_uri(self) -> str:
        """The URI of the record of its removal."""
        return join(self.stage_uri, REMOVED_FILE)

    @property
    def baseline_uri(self) -> str | None:
        """The URI of the manifest of the run's generation 0; None for a model of generation 0."""
        if self.generation == 0:
            return None
        return join(self.run_uri, stage_prefix(0, Stage.EVALUATE), MANIFEST)

    @property
    def report_uri(self) -> str:
        """The URI of the run's report."""
        return join(self.run_uri, REPORT_FILE)


class RemovedModel(ApiModel):
    """The record of a model that was removed."""

    keep: Keep
    """The value of `storage.keep`."""
    published: Annotated[int, Field(ge=0)]
    """The number of the generation at whose end the model was removed."""

    def encode(self) -> bytes:
        """Return the bytes of the file."""
        return canonical_json(self.to_json())


def parse_run_model(uri: str) -> RunModel | None:
    """Return the model of a run that a URI names, or None if it is another URI.

    Parameters
    ----------
    uri
        The URI of a model's folder.

    Examples
    --------
    >>> uri = "s3://bucket/default/demo-1/generations/003/train/model-0123456789ab"
    >>> model = parse_run_model(uri)
    >>> model.run_uri, model.generation, model.stage
    ('s3://bucket/default/demo-1', 3, <Stage.TRAIN: 'Train'>)
    >>> parse_run_model("hf://owner/name") is None
    True
    """
    match = _MODEL.search(uri.rstrip("/"))
    if match is None:
        return None
    return RunModel(uri[: match.start()], int(match[1]), _STAGES[match[2]], match[3])


def model_folder_name(digest: str) -> str:
    """Return the name of the folder of a model that a stage trained.

    The hash is in the name, so that two attempts never write different models to one place.

    Parameters
    ----------
    digest
        The SHA-256 of the model, see :func:`selfemo_jobs.models.model_folder.model_sha256`.

    Examples
    --------
    >>> model_folder_name("0123456789abcdef")
    'model-0123456789ab'
    """
    return f"{MODEL}-{digest[:NAME_DIGITS]}"


def check_not_removed(uri: str, store: Store) -> None:
    """Check that ``storage.keep`` has not removed a model.

    Call it where a model is missing or not whole: a removal may have been interrupted.

    Parameters
    ----------
    uri
        The URI of the model's folder.
    store
        The run's store.

    Raises
    ------
    BadInput
        If it was removed.
    """
    model = parse_run_model(uri)
    if model is None or not uri.startswith(("file://", "s3://")):
        return
    try:
        record = RemovedModel.model_validate_json(store_for(uri, store).get(model.removed_uri))
    except (ObjectNotFound, ValidationError):
        return
    raise BadInput(
        f"{uri} was removed at the end of generation {record.published}, because `storage.keep` "
        f"is {record.keep.value}: use the run's best model, {best_uri(model.run_uri)}, or set "
        "`storage.keep: All` before the models are removed"
    )
