"""A model with sharp distributions, and descriptions of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.scored_models import make_sharp

from selfemo_api.model_description import Decoding, ModelDescription, PromptSetting
from selfemo_api.spec import Context, MaxTokens
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.prompts.prompt_texts import built_in_texts

#: Labels of one token and of many, with the same beginning, one the start of another, in two
#: scripts.
LABELS = ["joy", "joyous", "joyous surprise", "fear", "Überraschung", "愤怒", "no"]
LINES = (
    *("Oh no.", "Well, what do we do about that?", "I like it!", "Yes.", "You know that is all."),
    *("No.", "How are you?", "I do not know what to say about that, and you?", "Well."),
)


@pytest.fixture(scope="session")
def sharp_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small model some of whose tokens are much more likely than others."""
    folder = tmp_path_factory.mktemp("sharp") / "model"
    make_sharp(folder, tiny_model)
    return folder


@pytest.fixture
def describe() -> Callable[..., ModelDescription]:
    """Return a description with a built-in prompt set; keyword arguments change the decoding."""

    def build(prompts: str = "compact-v1", **decoding: Any) -> ModelDescription:
        texts = built_in_texts(prompts)
        return ModelDescription(
            labels=LABELS,
            context=Context(past=2, future=1),
            prompts=PromptSetting(
                name=prompts, chat=texts.chat, texts=dict(texts.texts), max_prompt_tokens=512
            ),
            decoding=Decoding(
                **{"max_tokens": MaxTokens(recognizer=6, responder=12), "batch_size": 4} | decoding
            ),
        )

    return build


@pytest.fixture
def dialogues() -> list[Dialogue]:
    turns = [Utterance("AB"[i % 2], line) for i, line in enumerate(LINES)]
    return [Dialogue("d1", tuple(turns[:5])), Dialogue("d2", tuple(turns[5:]))]
