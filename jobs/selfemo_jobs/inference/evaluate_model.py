"""F1 of a model on given dialogues, without a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_api.results import SourceScore
from selfemo_api.spec import Context, Engine, EvaluationSpec, MaxTokens, ModelSpec, MultiLabel
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.engines import open_engine
from selfemo_jobs.evaluation.scoring import compares_sets, score_predictions
from selfemo_jobs.inference.predictions import (
    LabeledPrompt,
    greedy_sampling,
    labeled_prompts,
    prediction_table,
)
from selfemo_jobs.models.fetch import load_tokenizer

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import Sampling, TextEngine


def evaluate_model(
    folder: Path,
    name: str,
    dialogues: Sequence[Dialogue],
    labels: Sequence[str],
    *,
    context: Context,
    prompts: str,
    max_prompt_tokens: int,
    multi_label: MultiLabel = MultiLabel.AUTO,
) -> SourceScore:
    """Return the scores of a model on the labeled utterances of some dialogues.

    The engine Transformers answers every utterance greedily. The scores equal those of the baseline
    of an evolution that has the same labels, context and prompts.

    Parameters
    ----------
    folder
        The folder of the model.
    name
        Name of the source in the result, at most 63 characters.
    dialogues
        The dialogues, with at least one labeled utterance.
    labels
        The label set.
    context
        The turns that the recognizer's prompt shows around an utterance.
    prompts
        Name of the prompt set.
    max_prompt_tokens
        Largest number of tokens in a prompt.
    multi_label
        Whether the labels of an utterance are compared as a set.

    Returns
    -------
    SourceScore
        The scores.

    Raises
    ------
    BadInput
        If a prompt is too long even without context.
    """
    model = ModelSpec(
        uri=folder.absolute().as_uri(), prompts=prompts, max_prompt_tokens=max_prompt_tokens
    )
    requests = labeled_prompts(dialogues, labels, context, model, load_tokenizer(folder))
    sampling = greedy_sampling(model, MaxTokens().recognizer)
    engine = open_engine(
        Engine.TRANSFORMERS,
        folder,
        engine_args={},
        max_model_len=max_prompt_tokens + sampling.max_tokens,
        seed=0,  # greedy decoding does not use it
    )
    try:
        return evaluate_engine(
            engine,
            name,
            requests,
            labels,
            sampling,
            multi_label=multi_label,
            resamples=EvaluationSpec().bootstrap,
        )
    finally:
        engine.close()


def evaluate_engine(
    engine: TextEngine,
    name: str,
    requests: Sequence[LabeledPrompt],
    labels: Sequence[str],
    sampling: Sampling,
    *,
    multi_label: MultiLabel,
    label_prior: Mapping[str, float] | None = None,
    resamples: int,
) -> SourceScore:
    """Return the scores of a loaded model on some labeled utterances.

    Parameters
    ----------
    engine
        The engine with the model.
    name
        Name of the source in the result, at most 63 characters.
    requests
        The prompts of the labeled utterances, at least one.
    labels
        The label set.
    sampling
        The parameters of greedy sampling.
    multi_label
        Whether the labels of an utterance are compared as a set.
    label_prior
        Share of each label where the model is used, or None.
    resamples
        Number of bootstrap resamples; 0 leaves the interval out.

    Returns
    -------
    SourceScore
        The scores.

    Raises
    ------
    ValueError
        If the label prior gives no utterance a weight above 0.
    """
    groups = engine.generate([request.prompt_ids for request in requests], sampling)
    table = prediction_table(requests, [group[0] for group in groups], labels)
    return score_predictions(
        name,
        labels,
        table,
        sets=compares_sets(multi_label, [request.gold for request in requests]),
        label_prior=label_prior,
        resamples=resamples,
        seed=0,
    )
