"""Weighted F1 of the model in training on the selection dataset, as the evaluate stage measures it.

The engine is always `Transformers`, over the model in memory: a second copy of a large model would
not fit. Where the evaluate stage uses the same engine and number format, its figure is the same.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from selfemo_api.spec import Engine, EvolutionSpec, Source
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.errors import BadInput
from selfemo_jobs.inference.evaluate_model import evaluate_engine
from selfemo_jobs.inference.predictions import (
    LabeledPrompt,
    greedy_sampling,
    labeled_prompts,
)


@dataclass(frozen=True)
class SelectionDataset:
    """The prompts of the selection dataset, and how its answers are scored."""

    spec: EvolutionSpec
    name: str
    """The name of the source."""
    prompts: list[LabeledPrompt]
    """The prompts of its labeled utterances, at least one."""

    def weighted_f1(self, model: PreTrainedModel, folder: Path) -> float:
        """Return the weighted F1 of a model, from 0 to 1.

        Parameters
        ----------
        model
            The model.
        folder
            The folder that it was loaded from, for its tokenizer.
        """
        spec = self.spec
        sampling = greedy_sampling(spec.model, spec.self_play.max_tokens.recognizer)
        arguments = TransformersArgs.parse(_engine_args(spec))
        engine = TransformersEngine(
            folder,
            arguments,
            max_model_len=spec.model.max_prompt_tokens + sampling.max_tokens,
            model=in_format_of(arguments.dtype, model),
        )
        score = evaluate_engine(
            engine,
            self.name,
            self.prompts,
            spec.dataset.labels,
            sampling,
            multi_label=spec.evaluation.multi_label,
            label_prior=spec.evaluation_label_prior,
            resamples=0,
        )
        return score.weighted_f1


def selection_source(spec: EvolutionSpec) -> Source:
    """Return the evaluation source that decides promotion."""
    return next(s for s in spec.dataset.evaluation if s.name == spec.selection_dataset)


def selection_dataset(
    spec: EvolutionSpec, dialogues: list[Dialogue], tokenizer: PreTrainedTokenizerBase
) -> SelectionDataset:
    """Return the selection dataset with its prompts.

    Parameters
    ----------
    spec
        The spec of the evolution.
    dialogues
        The dialogues of the selection dataset.
    tokenizer
        The tokenizer of the model.

    Raises
    ------
    BadInput
        If a prompt is too long even without context, or the label prior gives no utterance a
        weight.
    """
    source = selection_source(spec)
    try:
        prompts = labeled_prompts(
            dialogues, spec.dataset.labels, spec.dataset.context, spec.model, tokenizer
        )
    except BadInput as error:
        raise BadInput(f"{source.uri}: {error}") from None
    prior = spec.evaluation_label_prior
    if prior and not any(prior[label] for prompt in prompts for label in prompt.gold):
        raise BadInput(
            f"{source.uri}: no utterance's emotion has a share above 0 in `dataset.labelPrior`"
        )
    return SelectionDataset(spec, source.name, prompts)


def _engine_args(spec: EvolutionSpec) -> dict[str, Any]:
    """Return the arguments of the engine: those of self-play's, if it is `Transformers` too."""
    is_same = spec.evaluation_engine is Engine.TRANSFORMERS
    arguments = spec.evaluation_engine_args if is_same else {}
    return {**arguments, "batch_size": spec.evaluation.batch_size}


def in_format_of(dtype: str, model: PreTrainedModel) -> PreTrainedModel:
    """Return the model as the evaluate stage would load it: on a CPU, a copy in the same format.

    A model on a GPU is trained in its own format and used as it is. A copy might not fit.

    Parameters
    ----------
    dtype
        The number format that the engine's arguments name, or `auto`.
    model
        The model in training.
    """
    if model.device.type != "cpu" or dtype in ("auto", "float32"):
        return model
    copied = deepcopy(model)
    for weight in copied.parameters():  # not the buffers: positions need float32
        weight.data = weight.data.to(getattr(torch, dtype))
    return copied
