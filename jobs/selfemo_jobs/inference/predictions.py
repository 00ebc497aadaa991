"""Prompts for the labeled utterances of a source, and the model's answers as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from selfemo_api.spec import Context, ModelSpec
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.evaluation.prediction_table import PREDICTIONS
from selfemo_jobs.inference.answers import answer_sampling, read_answer
from selfemo_jobs.inference.targets import dialogue_targets, target_prompts
from selfemo_jobs.prompts import prompt_set_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class LabeledPrompt:
    """The recognizer's prompt about one labeled utterance.

    A hash over the fields, with their names, is part of the names of stored files.
    """

    dialogue_id: str
    """Id of the dialogue."""
    utterance: int
    """Index of the utterance within its dialogue."""
    gold: tuple[str, ...]
    """The utterance's labels in the order of the file, at least one."""
    prompt_ids: tuple[int, ...]
    """Token ids of the prompt."""


def greedy_sampling(model: ModelSpec, max_tokens: int) -> Sampling:
    """Return the sampling parameters with which the recognizer answers greedily.

    Each answer gets its log-probabilities. They cost one sum over the vocabulary for each token.

    Parameters
    ----------
    model
        The field ``spec.model``, whose prompt set has the text at which an answer ends.
    max_tokens
        Largest number of tokens of an answer.

    Returns
    -------
    Sampling
        The parameters, with temperature 0.
    """
    sampling = answer_sampling(prompt_set_of(model), max_tokens)
    return replace(sampling, greedy_logprobs=True)


def labeled_prompts(
    dialogues: Sequence[Dialogue],
    labels: Sequence[str],
    context: Context,
    model: ModelSpec,
    tokenizer: PreTrainedTokenizerBase,
) -> list[LabeledPrompt]:
    """Return a prompt for each labeled utterance.

    Parameters
    ----------
    dialogues
        The dialogues of a source.
    labels
        The label set.
    context
        The turns that a prompt shows around the utterance.
    model
        The field ``spec.model``, for the prompt set and the largest prompt.
    tokenizer
        The tokenizer of the model.

    Returns
    -------
    list of LabeledPrompt
        The prompts, in the order of the utterances.

    Raises
    ------
    BadInput
        If a prompt is too long even without context (``model.maxPromptTokens``).
    """
    prompt_set = prompt_set_of(model)
    labeled = [
        (target, turn.labels)
        for dialogue in dialogues
        for target, turn in zip(dialogue_targets(dialogue, context), dialogue.turns, strict=True)
        if turn.labels
    ]
    targets = [target for target, _ in labeled]
    prompts = target_prompts(targets, labels, prompt_set, tokenizer, model.max_prompt_tokens)
    return [
        LabeledPrompt(target.dialogue_id, target.utterance, gold, ids)
        for (target, gold), ids in zip(labeled, prompts, strict=True)
    ]


def prediction_table(
    prompts: Sequence[LabeledPrompt], completions: Sequence[Completion], labels: Sequence[str]
) -> pa.Table:
    """Return the answers to some prompts as a table.

    Parameters
    ----------
    prompts
        The prompts.
    completions
        The completion of each prompt.
    labels
        The label set.

    Returns
    -------
    pyarrow.Table
        One row for each prompt, with the columns of
        :data:`selfemo_jobs.evaluation.prediction_table.PREDICTIONS`.
    """
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        answer = read_answer(completion.text, labels)
        rows.append(
            {
                "dialogue_id": prompt.dialogue_id,
                "utterance": prompt.utterance,
                "gold": prompt.gold,
                "answer": completion.text,
                "named": answer.named,
                "predicted": answer.predicted,
                "well_formed": answer.well_formed,
                "probability": _probability(completion),
            }
        )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def _probability(completion: Completion) -> float | None:
    """Return the probability of a completion's tokens, to six digits, or None if it has none."""
    if not completion.logprobs:
        return None
    return round(math.exp(math.fsum(completion.logprobs)), 6)
