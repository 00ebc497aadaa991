"""Values that a file can have and no program expects: each is bad input with its place, or read."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.dialogue_files import read

from selfemo_jobs.datasets.csv_files import MOST_FIELD
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.folder import file_path
from selfemo_jobs.store.volumes import resolve_data_uri

LABELS = ["joy", "fear"]
#: More digits than Python turns into a number.
HUGE = "7" * 4301
TURN = '{"speaker": "A", "text": "Hi", "labels": ["joy"]}'


def rows(**values: str) -> str:
    fields = {"dialogue": '"d"', "turn": "1", "speaker": '"A"', "text": '"x"', "labels": '["joy"]'}
    return "{" + ", ".join(f'"{k}": {v}' for k, v in (fields | values).items()) + "}\n"


def table(**values: str) -> str:
    fields = {"dialogue": "d", "turn": "1", "speaker": "A", "text": "x", "label": "joy"} | values
    return ",".join(fields) + "\n" + ",".join(fields.values()) + "\n"


#: The name of a file, its content, and a part of the message.
REFUSED = {
    "a number of a turn, as text": ("a.jsonl", rows(turn=f'"{HUGE}"'), "must be an integer"),
    "a number of a turn": ("a.jsonl", rows(turn=HUGE), "not JSON"),
    "a number of more than 64 bits": ("a.jsonl", rows(turn="1" + "0" * 18), "an integer"),
    "a number that is infinite": ("a.jsonl", rows(turn="1e999"), "must be an integer"),
    "a number in a table": ("a.csv", table(turn=HUGE), "must be an integer"),
    "an infinite number in a table": ("a.csv", table(turn="inf"), "must be an integer"),
    "a power in a table": ("a.csv", table(turn="1e999999999"), "must be an integer"),
    "a superscript in a table": ("a.csv", table(turn="\u00b2"), "must be an integer"),
    "a label": ("a.jsonl", rows(labels=f'["{HUGE}"]'), "unknown emotion"),
    "an id": ("a.jsonl", f'{{"id": {HUGE}, "turns": [{TURN}]}}\n', "not JSON"),
    "a key that nothing reads": (
        "a.json",
        f'[{{"id": "d", "x": {HUGE}}}]',
        "not JSON",
    ),
    "no number": ("a.jsonl", rows(text="NaN"), "not JSON"),
    "half of a surrogate pair": ("a.jsonl", rows(text='"\\ud800"'), "surrogate"),
    "half of one in a label": ("a.jsonl", rows(labels='["joy\\udfff"]'), "surrogate"),
    "half of one in a key": ("a.jsonl", rows(**{"\\udfff": "1"}), "surrogate"),
    "nested lists": ("a.jsonl", f'{{"id": "d", "x": {"[" * 99_999}{"]" * 99_999}}}\n', "not JSON"),
    "nested objects": ("a.json", '{"a":' * 99_999 + "1" + "}" * 99_999, "not JSON"),
    "a zero byte": ("a.jsonl", rows(text='"x\0"'), "zero byte"),
    "a zero byte in a table": ("a.csv", table(text="x\0"), "zero byte"),
    "a long field": ("a.csv", table(text="x" * (MOST_FIELD + 1)), "more than 16777216 char"),
    "a zero character in a label": ("a.jsonl", rows(labels='["jo\\u0000y"]'), "unknown emotion"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_its_place(case: str, tmp_path: Path) -> None:
    name, content, message = REFUSED[case]
    path = tmp_path / name
    path.write_bytes(content.encode())
    with pytest.raises(BadInput, match=message) as caught:
        read(path, LABELS)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_zero_characters_in_texts_and_speakers_are_read_and_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(rows(text='"x\\u0000y"', speaker='"A\\u0000"'))
    content = read(path, LABELS)
    assert [w.message for w in content.warnings] == [
        "2 control or invisible characters remain in the text (first: line 1)"
    ]


@pytest.mark.parametrize("path", ["/a\0b", "/a%00b", "/a\ud800", "/%ED%A0%80/" + "a" * 256])
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    for convert, uri in ((file_path, f"file://{path}"), (resolve_data_uri, f"data://v{path}")):
        with pytest.raises(BadInput, match=r"not allowed in a path|too long for a path") as caught:
            convert(uri)
        str(caught.value).encode()


def test_a_long_path_is_refused() -> None:
    assert file_path("file:///" + "a" * 255).name == "a" * 255
    assert file_path("file:///" + "é" * 127).name == "é" * 127
    for path in ("a" * 256, "é" * 128, "a/" * 2048):
        with pytest.raises(BadInput, match="too long for a path"):
            file_path(f"file:///{path}")
