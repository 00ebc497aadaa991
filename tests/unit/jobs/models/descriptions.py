"""Descriptions of models for tests."""

from __future__ import annotations

from typing import Any

from selfemo_api.contract import StageConfig
from selfemo_api.model_description import ModelDescription
from selfemo_api.results import SourceScore
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.models.model_description import describe

LABELS = ["neutral", "joy", "anger"]


def spec(**changes: Any) -> EvolutionSpec:
    """Return a small spec; keyword arguments replace its parts."""
    base: dict[str, Any] = {
        "seed": 7,
        "model": {"uri": "hf://owner/base", "prompts": "compact-v1", "maxPromptTokens": 200},
        "dataset": {
            "labels": LABELS,
            "context": {"past": 3},
            "sources": [
                {"name": "train", "use": "SelfPlay", "uri": "hf://owner/talks?split=train"},
                {"name": "dev", "use": "Evaluation", "uri": "file:///home/ann/dev.jsonl"},
            ],
        },
        "storage": {"uri": "file:///home/ann/store"},
        "selfPlay": {
            "engine": "Transformers",
            "engineArgs": {"dtype": "bfloat16", "batch_size": 9},
            "temperature": 0.9,
        },
        "evaluation": {"batchSize": 5},
    }
    return EvolutionSpec.model_validate(base | changes)


def config(generation: int = 2, stage: Stage = Stage.TRAIN, **changes: Any) -> StageConfig:
    """Return the configuration of a stage that trains."""
    of_run = spec(**changes)
    run = "default/demo-0123abcd"
    return StageConfig(
        stage=stage,
        run=run,
        generation=generation,
        seed=1,
        spec=of_run,
        policy_uri=of_run.model.uri,
        judge_uri=of_run.model.uri,
        output=f"{of_run.storage.uri}/{run}/{stage_prefix(generation, stage)}",
    )


def described(**changes: Any) -> ModelDescription:
    """Return the description of a trained model, with other fields by keyword."""
    description = describe(
        config(),
        weights={"model.safetensors": "a" * 64, "config.json": "b" * 64},
        parents={"flywheel": "c" * 64},
        versions={"torch": "2.0", "selfemo": "1.0"},
        license="apache-2.0",
    )
    return description.model_copy(update=changes)


def score(source: str = "dev", f1: float = 0.5, labels: int = len(LABELS)) -> SourceScore:
    """Return the score of a source."""
    return SourceScore(
        source=source,
        utterances=100,
        weighted_f1=f1,
        weighted_f1_low=f1 - 0.05,
        weighted_f1_high=f1 + 0.05,
        strict_weighted_f1=f1,
        macro_f1=f1 - 0.1,
        accuracy=f1,
        unparsable=0.01,
        label_entropy=0.9,
        f1_by_label=[f1] * labels,
        predicted_shares=[1 / labels] * labels,
    )
