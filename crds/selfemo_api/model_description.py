"""``selfemo.json``: the file in a model folder that makes it usable on its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import API_VERSION, ApiModel
from selfemo_api.results import SourceScore
from selfemo_api.spec import (
    Context,
    DatasetSpec,
    Engine,
    EngineArgs,
    EvaluationSpec,
    MaxTokens,
    ModelSpec,
    MultiLabel,
)
from selfemo_api.spec.model import Template

#: The name of the file in a model's folder.
DESCRIPTION_FILE = "selfemo.json"
#: The name of the model card in a model's folder.
CARD_FILE = "README.md"


class PromptSetting(ApiModel):
    """The prompts that the model was trained with, with all their texts."""

    name: Annotated[str, Field(max_length=1024)]
    """The name of the built-in prompt set whose texts `texts` replaces, as in `model.prompts`. If
    the prompts came from a file, it is the built-in set of the same kind."""
    chat: bool
    """Whether prompts are chat messages, which the model's own chat template renders."""
    texts: Annotated[dict[str, Template], Field(max_length=16)]
    """Every text of the prompt set by name, as in `model.promptTemplates`."""
    max_prompt_tokens: Annotated[int, Field(ge=32, le=32768)] = ModelSpec.model_fields[
        "max_prompt_tokens"
    ].default
    """The maximum number of tokens per prompt. The oldest turns of longer prompts are dropped."""


class Decoding(ApiModel):
    """How the model's answers are decoded."""

    max_tokens: MaxTokens = MaxTokens()
    """The maximum number of tokens per completion, by role."""
    temperature: Annotated[float, Field(gt=0.0, le=5.0)] = 1.0
    """The temperature of the responder. The recognizer answers greedily."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The probability mass of nucleus sampling for the responder."""
    multi_label: MultiLabel = MultiLabel.AUTO
    """Whether all labels of an answer count, as in `evaluation.multiLabel`."""
    engine: Engine = Engine.TRANSFORMERS
    """The engine that the model was evaluated with. Any engine can be used, but only this one, with
    the same arguments, produces the same answers to the last digit."""
    engine_args: EngineArgs = Field(default_factory=dict)
    """The arguments of that engine, as in `selfPlay.engineArgs`."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = EvaluationSpec.model_fields[
        "batch_size"
    ].default
    """The number of prompts per batch of the `Transformers` engine, as in
    `evaluation.batchSize`."""


class Origin(ApiModel):
    """Where a model comes from: the run that produced it, and what it was trained from."""

    run: Annotated[str, Field(max_length=256)]
    """The folder of the run in the storage: `<namespace>/<name>-<uid8>`."""
    storage: Annotated[str, Field(max_length=1024)]
    """The URI below which the run has its folder (`storage.uri`)."""
    generation: Annotated[int, Field(ge=0)]
    """The number of the generation."""
    stage: Annotated[str, Field(max_length=63)]
    """The stage that wrote the model: `WarmStart` or `Train`."""
    base: Annotated[str, Field(max_length=1024)]
    """The URI of the model that the evolution starts from (`model.uri`)."""
    revision: Annotated[str, Field(max_length=253)] | None = None
    """The revision of the base model on the Hugging Face Hub."""
    recipe: Annotated[str, Field(max_length=63)] = ""
    """The recipe of the run."""
    seed: int = 0
    """The seed of the run."""
    parents: dict[str, str] = {}
    """The SHA-256 of the manifests that the training read, by stage."""


class ModelDescription(ApiModel):
    """What a model recognizes, how it is prompted, where it comes from and how good it is."""

    api_version: str = API_VERSION
    """The version of this format."""
    kind: str = "ModelDescription"
    """Always `ModelDescription`."""
    labels: Annotated[list[str], Field(min_length=2, max_length=64)]
    """The label set, in the order of all lists by label."""
    context: Context
    """The number of turns around the target utterance that a prompt shows."""
    prompts: PromptSetting
    """The prompts of both roles."""
    decoding: Decoding = Decoding()
    """How answers are decoded."""
    license: Annotated[str, Field(max_length=63)] = ""
    """The license of the base model as an identifier of the Hugging Face Hub, for example
    `apache-2.0`. Empty if it is unknown."""
    dataset: DatasetSpec | None = None
    """The data of the run: label set, sources and their use. The files are not included."""
    origin: Origin | None = None
    """The run that produced the model. Unset if the model was not produced by a run."""
    scores: Annotated[list[SourceScore], Field(max_length=16)] = []
    """The scores of the model on the evaluation sources. The selection dataset is the first. Empty
    if the model was not evaluated yet."""
    baseline_scores: Annotated[list[SourceScore], Field(max_length=16)] = []
    """The scores of the run's baseline on the same sources."""
    weights_sha256: dict[str, str] = {}
    """The SHA-256 of each file of the model except this file and the model card, by name."""
    versions: dict[str, str] = {}
    """The version of each library that can change the model."""
