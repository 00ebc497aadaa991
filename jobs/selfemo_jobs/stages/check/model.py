"""The model of generation 0: whether it can be reached, is whole, and fits the spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfemo_api.contract import StageConfig
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.model_folder import read_model_config
from selfemo_jobs.models.model_places import ModelPlace, find_model
from selfemo_jobs.models.model_weights import Tensor, check_weights, read_tensors
from selfemo_jobs.models.resume import locate_model
from selfemo_jobs.stages.check.architecture import check_architecture
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.light_tokenizer import read_tokenizer
from selfemo_jobs.stages.check.storage import Reader

#: Ends of the names of the matrix with a row for each token.
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


@dataclass
class CheckedModel:
    """What could be read of a model."""

    config: dict[str, Any] = field(default_factory=dict)
    """The content of ``config.json``; of a model with several parts, that of the decoder."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """The tensors of the weights, by name."""
    tokenizer: Any = None
    """The tokenizer, or None."""

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(tensor.size for tensor in self.tensors.values())


def check_model(
    config: StageConfig, reader: Reader, work: Path, findings: Findings
) -> CheckedModel:
    """Return what could be read of the model, and find what is wrong with it.

    Parameters
    ----------
    config
        The configuration of the check.
    reader
        What a model on S3 is read with.
    work
        The scratch folder, for the small files of a model on S3 or the hub.
    findings
        The problems are added to it.
    """
    spec = config.spec
    uri, name = spec.baseline_uri, "model.resumeFrom" if spec.model.resume_from else "model.uri"
    model = CheckedModel()
    place = None
    if reader.skips(uri):
        return model
    with findings.collecting(name):
        uri, revision = locate_model(config, reader.store, uri, record=False)
        place = find_model(uri, revision, reader.store, work)
    if place is None:
        return model
    with findings.collecting(name):
        check_weights(place.files, place.where)
        model.tensors = read_tensors(place.files, place.where)
    if not (place.folder / "config.json").is_file():
        return model  # this is a problem already
    settings: dict[str, Any] = {}
    with findings.collecting(name), _named(place):
        settings = read_model_config(place.folder)
    if settings:
        check_architecture(spec, settings, model.tensors, findings, field=name)
        decoder = settings.get("text_config")
        model.config = decoder if isinstance(decoder, dict) else settings
    with findings.collecting(name), _named(place):
        model.tokenizer = read_tokenizer(place.folder)
        _check_vocabulary(model)
    return model


@contextmanager
def _named(place: ModelPlace) -> Iterator[None]:
    """Return a context whose errors name the model's place, and not the folder of its copy."""
    try:
        yield
    except BadInput as error:
        raise BadInput(str(error).replace(str(place.folder), place.where)) from error


def _check_vocabulary(model: CheckedModel) -> None:
    """Raise BadInput if the tokenizer has more tokens than the model."""
    matrices = [tensor for name, tensor in model.tensors.items() if name.endswith(_EMBEDDINGS)]
    rows = max((tensor.shape[0] for tensor in matrices if len(tensor.shape) == 2), default=None)
    if rows is not None and len(model.tokenizer) > rows:
        raise BadInput(
            f"the tokenizer has {len(model.tokenizer)} tokens, but the model has {rows}: use the "
            "model's tokenizer"
        )
