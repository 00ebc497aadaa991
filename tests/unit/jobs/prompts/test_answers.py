from __future__ import annotations

from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_api.dataset_labels import MELD
from selfemo_jobs.prompts import nearest_label, parse_labels
from selfemo_jobs.prompts.answers import edit_distance


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("joy", ["joy"]),
        (" Joy.", ["joy"]),
        ("joy\n", ["joy"]),
        ("sadness, fear", ["sadness", "fear"]),
        ("ANGER and Surprise!", ["anger", "surprise"]),
        ("fear, anger, and disgust", ["fear", "anger", "disgust"]),
        ("joy\nsurprise", ["joy", "surprise"]),
        ('"neutral"', ["neutral"]),
        ("joy,", ["joy"]),
    ],
)
def test_well_formed(text: str, named: list[str]) -> None:
    parsed = parse_labels(text, MELD)
    assert parsed.well_formed
    assert list(parsed.named) == named
    assert list(parsed.labels) == [label for label in MELD if label in named]
    assert parsed.first == named[0]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", []),
        (" . ", []),
        ("and", []),
        ("joyful", []),
        ("enjoy", []),
        ("non-joy", []),
        ("joy, joy", ["joy"]),
        ("joy, bliss", ["joy"]),
        ("joy joy joy", ["joy"]),
        ("The emotion is sadness, not joy.", ["sadness", "joy"]),
        ("joy sadness", ["joy", "sadness"]),
    ],
)
def test_not_well_formed(text: str, named: list[str]) -> None:
    parsed = parse_labels(text, MELD)
    assert not parsed.well_formed
    assert list(parsed.named) == named


@given(st.lists(st.sampled_from(MELD), min_size=1, unique=True), st.sampled_from([", ", "\n"]))
def test_what_is_joined_is_parsed(labels: list[str], between: str) -> None:
    parsed = parse_labels(between.join(labels).title(), MELD)
    assert parsed.well_formed
    assert list(parsed.named) == labels


@given(st.text())
def test_any_text_parses(text: str) -> None:
    parsed = parse_labels(text, MELD)
    assert set(parsed.labels) == set(parsed.named) <= set(MELD)
    assert not (parsed.well_formed and not parsed.labels)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("joyful", "joy"),
        ("angry", "anger"),
        (" Sadnes", "sadness"),
        ("suprise", "surprise"),
        ("neutral.", "neutral"),
        ("", "joy"),
    ],
)
def test_nearest(text: str, label: str) -> None:
    assert nearest_label(text, MELD) == label


def test_the_first_of_equals() -> None:
    assert nearest_label("x", ("bb", "aa")) == "bb"


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_edit_distance_is_a_metric(a: str, b: str, c: str) -> None:
    assert edit_distance(a, a) == 0
    assert edit_distance(a, b) == edit_distance(b, a)
    assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)
    assert abs(len(a) - len(b)) <= edit_distance(a, b) <= max(len(a), len(b))
    # an alignment of difflib's is one way of editing: the distance is never longer
    moves = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    cost = sum(max(m[2] - m[1], m[4] - m[3]) for m in moves if m[0] != "equal")
    assert edit_distance(a, b) <= cost


def test_edit_distance_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("flaw", "lawn") == 2
