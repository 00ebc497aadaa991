"""Plain text: a turn in each line."""

from __future__ import annotations

import pytest

from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.datasets.plain_text import read_plain_text, split_speaker
from selfemo_jobs.datasets.reading import Notes
from selfemo_jobs.datasets.text_files import Place
from selfemo_jobs.errors import BadInput


def read(text: str) -> list[list[tuple[str, str]]]:
    lines = ((Place("t.txt", n), line) for n, line in enumerate(text.splitlines(), start=1))
    dialogues = read_plain_text(lines, Notes())
    return [[(turn.speaker, turn.text) for turn in turns] for turns in dialogues]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Ann: We won!", ("Ann", "We won!")),
        ("  Dr. Green :  We won!", ("Dr. Green", "We won!")),
        ("Ann:", ("Ann", "")),
        ("小明：我们赢了", ("小明", "我们赢了")),
        ("B2: 10:30 it is", ("B2", "10:30 it is")),
        ("It is 10:30", None),
        ("https://example.org is down", None),
        ("Well, I say: go", None),
        ("I would like to say: go", None),
        (f"{'x' * 41}: go", None),
        (": go", None),
        ("", None),
    ],
)
def test_speaker_of_a_line(line: str, expected: tuple[str, str] | None) -> None:
    assert split_speaker(line) == expected


def test_speakers_and_blank_lines() -> None:
    assert read("\nAnn: We won!\nBo: At last.\n\n \nAnn:  Hello \t again\n") == [
        [("Ann", "We won!"), ("Bo", "At last.")],
        [("Ann", "Hello again")],
    ]


def test_without_speakers_they_alternate() -> None:
    assert read("We won!\nNote: at last.\nYes\n\nHello") == [
        [("A", "We won!"), ("B", "Note: at last."), ("A", "Yes")],
        [("A", "Hello")],
    ]


def test_without_lines_there_is_no_dialogue() -> None:
    assert read("\n \n") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Ann: Hi\nHello", "t.txt line 2: has no speaker, but the first line has one"),
        ("Ann: Hi\n\nHello", "t.txt line 3: has no speaker, but the first line has one"),
        ("Ann: Hi\nBo: ", "t.txt line 2: `Bo:` has no text after it"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(text)
    assert str(caught.value).startswith(message)


def test_turns_are_read_one_by_one() -> None:
    turns = next(read_plain_text(((Place("t", n), "Hi") for n in iter(int, 1)), Notes()))
    assert next(turns) == Utterance("A", "Hi")
