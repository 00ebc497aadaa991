from __future__ import annotations

import re
from difflib import SequenceMatcher

import pytest
from hypothesis import given, settings
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


@pytest.mark.parametrize(
    ("text", "labels", "named"),
    [
        ("开心", ("开心", "惊讶"), ["开心"]),
        (" “开心”。\n", ("开心", "惊讶"), ["开心"]),
        ("惊讶、开心！", ("开心", "惊讶"), ["惊讶", "开心"]),
        ("惊讶，开心", ("开心", "惊讶"), ["惊讶", "开心"]),
        ("惊讶\u3000和 开心", ("开心", "惊讶"), ["惊讶", "开心"]),
        ("「平和」以及『开心』", ("开心", "平和"), ["平和", "开心"]),
        ("平和和开心", ("开心", "平和"), ["平和", "开心"]),  # a label may contain "和"
        ("不开心", ("开心", "不开心"), ["不开心"]),
        ("ＨＡＰＰＹ，ｓａｄ", ("happy", "sad"), ["happy", "sad"]),
        ("happy，sad。", ("happy", "sad"), ["happy", "sad"]),
        ("喜びと驚き", ("喜び", "驚き"), ["喜び", "驚き"]),
        ("حزين، سعيد؟", ("سعيد", "حزين"), ["حزين", "سعيد"]),
        ("दुख, खुशी।", ("खुशी", "दुख"), ["दुख", "खुशी"]),
        ("ดีใจ, เศร้า", ("ดีใจ", "เศร้า"), ["ดีใจ", "เศร้า"]),
        ("cole\u0300re", ("colère", "joie"), ["colère"]),
        ("VERY  happy", ("very happy", "happy"), ["very happy"]),
        ("Very_Happy, so-so", ("very_happy", "so-so"), ["very_happy", "so-so"]),
        ("joy", ("Joy", "Fear"), ["Joy"]),
        ("(happy)", ("(happy)", "happy"), ["(happy)"]),
        ("😀", ("😀", "😢"), ["😀"]),
        ("love and hate and joy", ("joy", "love and hate"), ["love and hate", "joy"]),
    ],
)
def test_labels_of_any_script(text: str, labels: tuple[str, ...], named: list[str]) -> None:
    parsed = parse_labels(text, labels)
    assert parsed.well_formed
    assert list(parsed.named) == named
    assert list(parsed.labels) == [label for label in labels if label in named]


@pytest.mark.parametrize(
    ("text", "labels", "named"),
    [
        ("他的情绪是开心。", ("开心", "惊讶"), ["开心"]),
        ("开心开心", ("开心", "惊讶"), ["开心"]),
        ("开心，开心", ("开心", "惊讶"), ["开心"]),
        ("开心 惊讶", ("开心", "惊讶"), ["开心", "惊讶"]),
        ("情绪是joy吧", ("joy", "fear"), ["joy"]),
        ("أشعر بالحزن", ("حزن", "فرح"), []),  # within a word
        ("슬픔입니다", ("슬픔", "기쁨"), ["슬픔"]),
        ("unhappy", ("happy", "sad"), []),
        ("？！", ("开心", "惊讶"), []),
        ("、", ("开心", "惊讶"), []),
    ],
)
def test_labels_in_other_words(text: str, labels: tuple[str, ...], named: list[str]) -> None:
    parsed = parse_labels(text, labels)
    assert not parsed.well_formed
    assert list(parsed.named) == named


#: The rule of the first release, for labels in lower-case ASCII.
OLD_SEPARATOR = re.compile(r"[,\n]|(?<![\w-])and(?![\w-])")
OLD_PUNCTUATION = " \t\r\v\f.;:!?\"'`*()[]"


def old_rule(text: str, labels: tuple[str, ...]) -> tuple[list[str], bool]:
    answer = text.lower().strip()
    pieces = [piece.strip(OLD_PUNCTUATION) for piece in OLD_SEPARATOR.split(answer)]
    named = [piece for piece in pieces if piece in labels]
    well_formed = bool(named) and named == [piece for piece in pieces if piece]
    if not well_formed:
        either = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
        named = re.findall(rf"(?<![\w-])(?:{either})(?![\w-])", answer)
    unique = list(dict.fromkeys(named))
    return unique, well_formed and len(unique) == len(named)


ENGLISH_LABELS = (*MELD, "self-conscious", "mad")
ENGLISH_PIECES = st.sampled_from(
    (
        *ENGLISH_LABELS,
        "Joy",
        "joyful",
        "non-joy",
        "and",
        "And",
        "sand",
        *",\n .;:!?\"'`*()[]-_&/x7\t\r",
    )
)


@given(st.lists(ENGLISH_PIECES, max_size=9).map("".join))
@settings(max_examples=1000)
def test_english_answers_are_read_as_before(text: str) -> None:
    parsed = parse_labels(text, ENGLISH_LABELS)
    assert (list(parsed.named), parsed.well_formed) == old_rule(text, ENGLISH_LABELS)


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_ascii_answers_are_read_as_before(text: str) -> None:
    parsed = parse_labels(text, ENGLISH_LABELS)
    assert (list(parsed.named), parsed.well_formed) == old_rule(text, ENGLISH_LABELS)


@pytest.mark.parametrize(
    ("text", "label"), [("很开心", "开心"), ("难 过", "难过"), ("ＨＡＰＰ", "happy"), ("", "开心")]
)
def test_nearest_of_any_script(text: str, label: str) -> None:
    assert nearest_label(text, ("开心", "难过", "happy")) == label


def test_edit_distance_by_hand() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("flaw", "lawn") == 2
