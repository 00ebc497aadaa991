from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import Context, ModelSpec
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.engines.interface import Completion
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.stages.evaluate.metrics import UNPARSABLE
from selfemo_jobs.stages.evaluate.predictions import (
    PREDICTIONS,
    Question,
    answer_table,
    answers_of,
    questions,
)

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


def ask(tokenizer: Any, past: int, future: int, most: int = 1024) -> list[Question]:
    model = ModelSpec(uri="file:///m", prompts="compact-v1", max_prompt_tokens=most)
    context = Context(past=past, future=future)
    return questions([DIALOGUE], MELD, context, model, tokenizer)


def test_labelled_utterances_with_their_context(tokenizer: Any) -> None:
    asked = ask(tokenizer, past=1, future=0)
    assert [(q.dialogue_id, q.utterance, q.gold) for q in asked] == [
        ("d", 0, "joy"),
        ("d", 2, "fear"),
        ("d", 3, "anger"),
    ]
    assert [tokenizer.decode(q.prompt_ids) for q in asked] == [
        "Ann: one\nEmotion:",
        "Bob: two\nAnn: three\nEmotion:",
        "Ann: three\nBob: four\nEmotion:",
    ]


def test_the_future_is_shown_only_if_asked_for(tokenizer: Any) -> None:
    for question in ask(tokenizer, past=64, future=0):
        text = tokenizer.decode(question.prompt_ids)
        later = [t.text for t in DIALOGUE.turns[question.utterance + 1 :]]
        assert not any(word in text for word in later)
    first, *_ = ask(tokenizer, past=0, future=2)
    assert tokenizer.decode(first.prompt_ids) == (
        "Later Bob: two\nLater Ann: three\nAnn: one\nEmotion:"
    )


def test_too_long_names_the_utterance(tokenizer: Any) -> None:
    long = Dialogue("d", (Utterance("Ann", "word " * 60, ("joy",)),))
    model = ModelSpec(uri="file:///m", prompts="compact-v1", max_prompt_tokens=32)
    with pytest.raises(BadInput, match=r"^dialogue d utterance 0: `model.maxPromptTokens` is 32"):
        questions([long], MELD, Context(), model, tokenizer)


def test_answers() -> None:
    asked = [
        Question("a", 0, "joy", (1,)),
        Question("a", 1, "fear", (1,)),
        Question("b", 0, "joy", (1,)),
    ]
    said = [
        Completion((1,), (), text, finished=True) for text in (" joy", " surprise, fear", "joyfull")
    ]
    table = answer_table(asked, said, MELD)
    assert table.schema == PREDICTIONS
    assert table["named"].to_pylist() == ["joy", "surprise", None]
    assert table["predicted"].to_pylist() == ["joy", "surprise", "joy"]
    assert table["well_formed"].to_pylist() == [True, True, False]
    answers = answers_of(table, MELD)
    assert answers.dialogue.tolist() == [0, 0, 1]
    assert answers.named.tolist() == [4, 1, UNPARSABLE]
    assert answers.mapped.tolist() == [4, 1, 4]
    assert answers.gold.tolist() == [4, 2, 4]
