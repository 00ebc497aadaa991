"""What is asked of the model for a source, and its answers as a table."""

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
from selfemo_jobs.stages.evaluate.metrics import UNPARSABLE, Answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Evaluate's output, one row for each labeled utterance, in file order.
PREDICTIONS = pa.schema(
    [
        pa.field("dialogue_id", pa.string(), nullable=False),
        # index of the utterance within its dialogue
        pa.field("utterance", pa.int32(), nullable=False),
        # the utterance's first label
        pa.field("gold", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        # the label that the answer names first; null where it names none
        pa.field("named", pa.string()),
        # the same, with the nearest label where none is named
        pa.field("predicted", pa.string(), nullable=False),
        pa.field("well_formed", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Question:
    """One utterance to read."""

    dialogue_id: str
    utterance: int
    gold: str
    prompt_ids: tuple[int, ...]


def greedy(prompts: str, max_tokens: int) -> Sampling:
    """Return how the recognizer of a prompt set is asked: nothing is drawn."""
    stop = load_prompt_set(prompts).stop(Role.RECOGNIZER)
    return Sampling(temperature=0.0, max_tokens=max_tokens, stop=stop)


def questions(
    dialogues: Sequence[Dialogue],
    labels: Sequence[str],
    context: Context,
    model: ModelSpec,
    tokenizer: PreTrainedTokenizerBase,
) -> list[Question]:
    """Return the labeled utterances, each with its prompt.

    An utterance with several labels counts with its first: weighted F1 is of one label each.

    Raises
    ------
    BadInput
        If a prompt is too long even without context (``model.maxPromptTokens``).
    """
    prompts = load_prompt_set(model.prompts)
    asked = []
    for dialogue in dialogues:
        turns = dialogue.turns
        for i, turn in enumerate(turns):
            if not turn.labels:
                continue
            try:
                ids = prompts.recognise_ids(
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
            asked.append(Question(dialogue.id, i, turn.labels[0], tuple(ids)))
    return asked


def answer_table(
    asked: Sequence[Question], completions: Sequence[Completion], labels: Sequence[str]
) -> pa.Table:
    """Return the answers to questions, in their order, as a table of ``PREDICTIONS``."""
    rows = []
    for question, completion in zip(asked, completions, strict=True):
        parsed = parse_labels(completion.text, labels)
        rows.append(
            {
                "dialogue_id": question.dialogue_id,
                "utterance": question.utterance,
                "gold": question.gold,
                "answer": completion.text,
                "named": parsed.first,
                "predicted": parsed.first or nearest_label(completion.text, labels),
                "well_formed": parsed.well_formed,
            }
        )
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)


def answers_of(table: pa.Table, labels: Sequence[str]) -> Answers:
    """Return a table of ``PREDICTIONS`` as arrays of indices."""
    index = {label: i for i, label in enumerate(labels)}

    def column(name: str) -> list[int]:
        return [index.get(value, UNPARSABLE) for value in table[name].to_pylist()]

    dialogues: dict[str, int] = {}
    numbers = [dialogues.setdefault(d, len(dialogues)) for d in table["dialogue_id"].to_pylist()]
    return Answers(
        dialogue=np.array(numbers, dtype=np.int64),
        gold=np.array(column("gold"), dtype=np.int64),
        named=np.array(column("named"), dtype=np.int64),
        mapped=np.array(column("predicted"), dtype=np.int64),
    )
