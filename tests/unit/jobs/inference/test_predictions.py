"""The prompts of a source, and the table of answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import Context, ModelSpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.engines.interface import Completion
from selfemo_jobs.errors import BadInput
from selfemo_jobs.evaluation.metrics import UNPARSABLE
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
    read_predictions,
    read_set_predictions,
)
from selfemo_jobs.inference.predictions import (
    LabeledPrompt,
    labeled_prompts,
    prediction_table,
)
from selfemo_jobs.models.fetch import load_tokenizer

DIALOGUE = Dialogue(
    "d",
    (
        Utterance("Ann", "one", ("joy",)),
        Utterance("Bob", "two"),
        Utterance("Ann", "three", ("fear", "joy")),
        Utterance("Bob", "four", ("anger",)),
    ),
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(tiny_model)


def prompts_of(
    tokenizer: Any, past: int, future: int, max_tokens: int = 1024
) -> list[LabeledPrompt]:
    model = ModelSpec(uri="file:///m", prompts="compact-v1", max_prompt_tokens=max_tokens)
    context = Context(past=past, future=future)
    return labeled_prompts([DIALOGUE], MELD, context, model, tokenizer)


def test_each_labeled_utterance_has_a_prompt_with_its_context(tokenizer: Any) -> None:
    prompts = prompts_of(tokenizer, past=1, future=0)
    assert [(p.dialogue_id, p.utterance, p.gold) for p in prompts] == [
        ("d", 0, ("joy",)),
        ("d", 2, ("fear", "joy")),
        ("d", 3, ("anger",)),
    ]
    assert [tokenizer.decode(p.prompt_ids) for p in prompts] == [
        "Ann: one\nEmotion:",
        "Bob: two\nAnn: three\nEmotion:",
        "Ann: three\nBob: four\nEmotion:",
    ]


def test_later_turns_are_shown_only_if_the_context_has_a_future(tokenizer: Any) -> None:
    for prompt in prompts_of(tokenizer, past=64, future=0):
        text = tokenizer.decode(prompt.prompt_ids)
        later = [t.text for t in DIALOGUE.turns[prompt.utterance + 1 :]]
        assert not any(word in text for word in later)
    first, *_ = prompts_of(tokenizer, past=0, future=2)
    assert tokenizer.decode(first.prompt_ids) == (
        "Later Bob: two\nLater Ann: three\nAnn: one\nEmotion:"
    )


def test_the_error_about_a_long_prompt_names_the_utterance(tokenizer: Any) -> None:
    long = Dialogue("d", (Utterance("Ann", "word " * 60, ("joy",)),))
    model = ModelSpec(uri="file:///m", prompts="compact-v1", max_prompt_tokens=32)
    with pytest.raises(BadInput, match=r"^dialogue d utterance 0: `model.maxPromptTokens` is 32"):
        labeled_prompts([long], MELD, Context(), model, tokenizer)


def answers_table() -> pa.Table:
    prompts = [
        LabeledPrompt("a", 0, ("joy",), (1,)),
        LabeledPrompt("a", 1, ("fear", "surprise"), (1,)),
        LabeledPrompt("b", 0, ("joy",), (1,)),
    ]
    completions = [
        Completion((1,), logprobs, text, finished=True)
        for text, logprobs in ((" joy", (-0.5, -0.2)), (" surprise, fear", ()), ("joyfull", (0.0,)))
    ]
    return prediction_table(prompts, completions, MELD)


def test_answers_become_a_table_and_arrays_of_first_labels() -> None:
    table = answers_table()
    assert table.schema == PREDICTIONS
    assert table["gold"].to_pylist() == [["joy"], ["fear", "surprise"], ["joy"]]
    assert table["named"].to_pylist() == [["joy"], ["surprise", "fear"], []]
    assert table["predicted"].to_pylist() == [["joy"], ["surprise", "fear"], ["joy"]]
    assert table["well_formed"].to_pylist() == [True, True, False]
    assert table["probability"].to_pylist() == [round(math.exp(-0.7), 6), None, 1.0]
    predictions = read_predictions(table, MELD)
    assert predictions.dialogue.tolist() == [0, 0, 1]
    assert predictions.named.tolist() == [4, 1, UNPARSABLE]
    assert predictions.predicted.tolist() == [4, 1, 4]
    assert predictions.gold.tolist() == [4, 2, 4]


def test_answers_become_sets() -> None:
    predictions = read_set_predictions(answers_table(), MELD)
    assert predictions.dialogue.tolist() == [0, 0, 1]
    joy, both, none = [0, 0, 0, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0], [0] * 7
    assert predictions.gold.astype(int).tolist() == [joy, both, joy]
    assert predictions.named.astype(int).tolist() == [joy, both, none]
    assert predictions.predicted.astype(int).tolist() == [joy, both, joy]
