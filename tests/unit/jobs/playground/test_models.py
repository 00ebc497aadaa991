"""What a person pastes, and the models of the page."""

from __future__ import annotations

import pytest

from selfemo_jobs.errors import BadInput
from selfemo_jobs.inference.responses import reply_speaker
from selfemo_jobs.playground.example_dialogues import EXAMPLES
from selfemo_jobs.playground.models import (
    MOST_TURNS,
    parse_turns,
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_are_dialogues(name: str) -> None:
    turns = parse_turns(EXAMPLES[name])
    assert len(turns) >= 4
    assert len({turn.speaker for turn in turns}) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no turns"),
        (" \n\n", "there are no turns"),
        ("Ann: Hi.\n\nBo: Hi.", "a blank line ends a dialogue"),
        ("Ann: Hi.\n" * (MOST_TURNS + 1), "use `selfemo predict`"),
        ("Ann: Hi.\nno speaker here", "speaker"),
    ],
)
def test_a_text_that_is_not_a_dialogue_is_refused(text: str, message: str) -> None:
    with pytest.raises((ValueError, BadInput), match=message):
        parse_turns(text)


def test_the_reply_is_that_of_the_other_speaker() -> None:
    assert reply_speaker(parse_turns("Ann: Hi.\nBo: Hello.\nAnn: How are you?")) == "Bo"
    assert reply_speaker(parse_turns("Ann: Hi.\nAnn: Is anyone there?")) == "B"
