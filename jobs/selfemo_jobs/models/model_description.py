"""``selfemo.json`` in a model's folder: written by the stages that train, read by all that use it.

A description has no time, no host name and no path of this machine but those of the spec: the same
configuration gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selfemo_api.contract import StageConfig
from selfemo_api.model_description import (
    Decoding,
    ModelDescription,
    Origin,
    PromptSetting,
)
from selfemo_api.results import SourceScore
from selfemo_api.spec import (
    Context,
    Engine,
    EvaluationSpec,
    EvolutionSpec,
    MaxTokens,
    ModelSpec,
)
from selfemo_jobs.prompts import PromptSet, prompt_set_names
from selfemo_jobs.prompts.loader import compile_prompt_set
from selfemo_jobs.prompts.prompt_texts import PromptTexts, built_in_texts
from selfemo_jobs.runtime.manifest import Manifest

#: The start of the URIs of files on one machine.
_LOCAL = "file://"


def describe(
    config: StageConfig,
    *,
    weights: Mapping[str, str],
    parents: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    license: str = "",
) -> ModelDescription:
    """Return the description of the model that a stage has trained. It has no scores yet.

    Parameters
    ----------
    config
        The configuration of the stage. The texts of its prompts are in the spec
        (:mod:`selfemo_jobs.runtime.stage_prompts`).
    weights
        The SHA-256 of each file of the model, by name.
    parents
        The SHA-256 of the manifests that the stage read, by stage slug.
    versions
        The version of each library that can change the model.
    license
        The license of the base model, as an identifier of the hub. Empty: it is not known.
    """
    spec = config.spec
    origin = Origin(
        run=config.run,
        storage=spec.storage.uri,
        generation=config.generation,
        stage=config.stage.value,
        base=spec.model.uri,
        revision=spec.model.revision,
        recipe=spec.recipe,
        seed=spec.seed,
        parents=dict(sorted((parents or {}).items())),
    )
    return describe_spec(spec).model_copy(
        update={
            "license": license,
            "origin": origin,
            "weights_sha256": dict(sorted(weights.items())),
            "versions": dict(sorted((versions or {}).items())),
        }
    )


def describe_spec(spec: EvolutionSpec, texts: PromptTexts | None = None) -> ModelDescription:
    """Return what a spec defines about the use of its models: labels, prompts and decoding.

    Parameters
    ----------
    spec
        The spec of an evolution.
    texts
        The texts of the prompts. None: ``model.prompts`` names a built-in set.

    Raises
    ------
    BadInput
        If ``model.prompts`` is a URI and there are no texts.
    """
    if texts is None:
        texts = built_in_texts(spec.model.prompts).with_texts(spec.model.prompt_templates)
    return ModelDescription(
        labels=list(spec.dataset.labels),
        context=spec.dataset.context,
        prompts=prompt_setting(texts, spec.model),
        decoding=decoding_of(spec),
        dataset=spec.dataset,
    )


def decoding_of(spec: EvolutionSpec) -> Decoding:
    """Return how the evaluation of a run decodes answers, and how its responder draws.

    Parameters
    ----------
    spec
        The spec of an evolution.
    """
    arguments = evaluation_arguments(spec)
    if spec.evaluation_engine is Engine.TRANSFORMERS:
        del arguments["batch_size"]  # it has a field of its own
    return Decoding(
        max_tokens=spec.self_play.max_tokens,
        temperature=spec.self_play.temperature,
        top_p=spec.self_play.top_p,
        multi_label=spec.evaluation.multi_label,
        engine=spec.evaluation_engine,
        engine_args=arguments,
        batch_size=spec.evaluation.batch_size,
    )


def evaluation_arguments(spec: EvolutionSpec) -> dict[str, Any]:
    """Return the arguments of the evaluation's engine.

    ``evaluation.batchSize`` is for the Transformers engine: vLLM decides itself about its batches.

    Parameters
    ----------
    spec
        The spec of an evolution.
    """
    arguments = spec.evaluation_engine_args
    if spec.evaluation_engine is Engine.TRANSFORMERS:
        arguments["batch_size"] = spec.evaluation.batch_size
    return arguments


def described_by_manifest(manifest: Manifest) -> ModelDescription | None:
    """Return what a manifest has about the use of its model, or None if it has no labels.

    The manifest of an evaluation has the labels, the prompts and the scores. So a model without a
    description can be used as it was evaluated.

    Parameters
    ----------
    manifest
        The manifest.
    """
    settings = manifest.config
    labels, prompts = settings.get("dataset.labels"), str(settings.get("model.prompts"))
    if not labels or prompts not in prompt_set_names():
        return None
    model = ModelSpec.model_validate(
        {
            "uri": "file:///model",
            "prompts": prompts,
            "promptTemplates": settings.get("model.promptTemplates") or {},
            "maxPromptTokens": settings.get("model.maxPromptTokens")
            or ModelSpec.model_fields["max_prompt_tokens"].default,
        }
    )
    tokens = settings.get("selfPlay.maxTokens.recognizer")
    evaluation = EvaluationSpec.model_validate(settings.get("evaluation") or {})
    engine = Engine(settings.get("selfPlay.engine") or Engine.TRANSFORMERS)
    arguments = dict(settings.get("selfPlay.engineArgs") or {})
    arguments.pop("batch_size", None)
    return ModelDescription(
        labels=list(labels),
        context=Context.model_validate(settings.get("dataset.context") or {}),
        prompts=prompt_setting(built_in_texts(prompts).with_texts(model.prompt_templates), model),
        decoding=Decoding(
            max_tokens=MaxTokens.model_validate({"recognizer": tokens} if tokens else {}),
            multi_label=evaluation.multi_label,
            engine=evaluation.engine or engine,
            engine_args=arguments if evaluation.engine in {None, engine} else {},
            batch_size=evaluation.batch_size,
        ),
        scores=manifest.scores,
    )


def describe_labels(
    labels: Sequence[str],
    prompts: str,
    context: Context,
    *,
    max_prompt_tokens: int | None = None,
) -> ModelDescription:
    """Return the description of a model that no run has trained.

    Parameters
    ----------
    labels
        The label set.
    prompts
        The name of a built-in prompt set.
    context
        The turns that a prompt shows.
    max_prompt_tokens
        The most tokens of a prompt. None: the default of ``model.maxPromptTokens``.
    """
    model = ModelSpec(uri="file:///model", prompts=prompts)
    if max_prompt_tokens is not None:
        model = model.model_copy(update={"max_prompt_tokens": max_prompt_tokens})
    return ModelDescription(
        labels=list(labels),
        context=context,
        prompts=prompt_setting(built_in_texts(prompts), model),
    )


def prompt_setting(texts: PromptTexts, model: ModelSpec) -> PromptSetting:
    """Return the prompts of a description.

    Parameters
    ----------
    texts
        The texts of the prompts.
    model
        The model's spec, of which ``maxPromptTokens`` is used.
    """
    name = texts.place
    if "://" in name:
        name = "chat-v1" if texts.chat else "compact-v1"
    return PromptSetting(
        name=name,
        chat=texts.chat,
        texts=dict(sorted(texts.texts.items())),
        max_prompt_tokens=model.max_prompt_tokens,
    )


def prompt_set_of_description(description: ModelDescription) -> PromptSet:
    """Return the compiled prompts of a model.

    Parameters
    ----------
    description
        The description of the model.

    Raises
    ------
    BadInput
        If a template cannot be used.
    """
    prompts = description.prompts
    return compile_prompt_set(PromptTexts(prompts.name, prompts.chat, prompts.texts))


def with_scores(
    description: ModelDescription,
    scores: Sequence[SourceScore],
    baseline_scores: Sequence[SourceScore] = (),
) -> ModelDescription:
    """Return a description with the scores of an evaluation, which replace earlier ones.

    Parameters
    ----------
    description
        The description.
    scores
        The scores of the model. The selection dataset is the first.
    baseline_scores
        The scores of the run's baseline on the same sources. Empty: the model is the baseline.
    """
    return description.model_copy(
        update={"scores": list(scores), "baseline_scores": list(baseline_scores)}
    )


def without_local_paths(description: ModelDescription) -> ModelDescription:
    """Return a description for other people: of a path on one machine, only the last name is kept.

    Parameters
    ----------
    description
        The description.
    """
    document = description.to_json()

    def shorten(value: Any) -> Any:
        if isinstance(value, str):
            local = value.startswith(_LOCAL)
            return _LOCAL + "/" + value.rstrip("/").rpartition("/")[2] if local else value
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        return [shorten(item) for item in value] if isinstance(value, list) else value

    places = {name: shorten(document[name]) for name in ("dataset", "origin") if name in document}
    return ModelDescription.model_validate({**document, **places})
