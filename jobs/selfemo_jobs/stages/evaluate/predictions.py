"""Prompts for the labeled utterances of a source, and the model's answers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from selfemo_api.spec import Context, ModelSpec, Role
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.errors import BadInput
from selfemo_jobs.prompts import load_prompt_set, nearest_label, parse_labels
from selfemo_jobs.stages.evaluate.metrics import UNPARSABLE, Predictions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Result of Evaluate: one row for each labeled utterance, in the order of the source.
PREDICTIONS = pa.schema(
    [
        pa.field("dialogue_id", pa.string(), nullable=False),
        # index of the utterance within its dialogue
        pa.field("utterance", pa.int32(), nullable=False),
        # the utterance's first label
        pa.field("gold", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        # the label that the answer names first; null if it names none
        pa.field("named", pa.string()),
        # the same, or the nearest label if the answer names none
        pa.field("predicted", pa.string(), nullable=False),
        pa.field("well_formed", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class LabeledPrompt:
    """The recognizer's prompt about one labeled utterance.

    A hash over the fields, with their names, is part of the names of stored files.
    """

    dialogue_id: str
    """Id of the dialogue."""
    utterance: int
    """Index of the utterance within its dialogue."""
    gold: str
    """The utterance's first label."""
    prompt_ids: tuple[int, ...]
    """Token ids of the prompt."""


def greedy_sampling(prompts: str, max_tokens: int) -> Sampling:
    """Return the sampling parameters with which the recognizer answers greedily.

    Parameters
    ----------
    prompts
        Name of the prompt set, which has the texts at which an answer ends.
    max_tokens
        Largest number of tokens of an answer.

    Returns
    -------
    Sampling
        The parameters, with temperature 0.
    """
    stop = load_prompt_set(prompts).stop(Role.RECOGNIZER)
    return Sampling(temperature=0.0, max_tokens=max_tokens, stop=stop)


def labeled_prompts(
    dialogues: Sequence[Dialogue],
    labels: Sequence[str],
    context: Context,
    model: ModelSpec,
    tokenizer: PreTrainedTokenizerBase,
) -> list[LabeledPrompt]:
    """Return a prompt for each labeled utterance.

    Of several labels of an utterance the first one counts, since weighted F1 is defined for one
    label for each utterance.

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
    prompt_set = load_prompt_set(model.prompts)
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
            prompts.append(LabeledPrompt(dialogue.id, i, turn.labels[0], tuple(ids)))
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
        One row for each prompt, with the columns of :data:`PREDICTIONS`.
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
                "named": parsed.first,
                "predicted": parsed.first or nearest_label(completion.text, labels),
                "well_formed": parsed.well_formed,
            }
        )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def read_predictions(table: pa.Table, labels: Sequence[str]) -> Predictions:
    """Return the labels of a table as arrays of indices.

    Parameters
    ----------
    table
        A table with the columns of :data:`PREDICTIONS`, with at least one row.
    labels
        The label set.

    Returns
    -------
    Predictions
        Gold and predicted labels, in the order of the table.
    """
    index = {label: i for i, label in enumerate(labels)}

    def indices(column: str) -> list[int]:
        return [index.get(value, UNPARSABLE) for value in table[column].to_pylist()]

    dialogues: dict[str, int] = {}
    numbers = [dialogues.setdefault(d, len(dialogues)) for d in table["dialogue_id"].to_pylist()]
    return Predictions(
        dialogue=np.array(numbers, dtype=np.int64),
        gold=np.array(indices("gold"), dtype=np.int64),
        named=np.array(indices("named"), dtype=np.int64),
        predicted=np.array(indices("predicted"), dtype=np.int64),
    )
