"""Prompts for the labeled utterances of a source, and the model's answers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from selfemo_api.spec import Context, ModelSpec, Role
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.errors import BadInput
from selfemo_jobs.evaluation.prediction_table import PREDICTIONS
from selfemo_jobs.prompts import nearest_label, parse_labels, prompt_set_of

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
    stop = prompt_set_of(model).stop(Role.RECOGNIZER)
    return Sampling(temperature=0.0, max_tokens=max_tokens, stop=stop)


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
    prompts = []
    for dialogue in dialogues:
        turns = dialogue.turns
        for i, turn in enumerate(turns):
            if not turn.labels:
                continue
            try:
                ids = prompt_set.recognizer_ids(
                    tokenizer,
                    turns[max(0, i - context.past) : i],
                    turn.speaker,
                    turn.text,
                    labels,
                    turns[i + 1 : i + 1 + context.future],
                    max_tokens=model.max_prompt_tokens,
                )
            except BadInput as error:
                raise BadInput(f"dialogue {dialogue.id} utterance {i}: {error}") from None
            prompts.append(LabeledPrompt(dialogue.id, i, turn.labels, tuple(ids)))
    return prompts


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
        parsed = parse_labels(completion.text, labels)
        rows.append(
            {
                "dialogue_id": prompt.dialogue_id,
                "utterance": prompt.utterance,
                "gold": prompt.gold,
                "answer": completion.text,
                "named": parsed.named,
                "predicted": parsed.named or [nearest_label(completion.text, labels)],
                "well_formed": parsed.well_formed,
            }
        )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)
