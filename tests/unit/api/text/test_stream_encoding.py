"""Output whose encoding is not UTF-8: escapes stand for the characters that it lacks."""

from __future__ import annotations

import io
import json
import sys

import pytest

from selfemo_api.text.stream_encoding import escape_missing_characters

TEXT = "Zoë, 对话 \N{GRINNING FACE} 'a\\n'"


def written(monkeypatch: pytest.MonkeyPatch, name: str, encoding: str, text: str) -> str:
    """Write a text to a stream after the call, and return what its bytes are in its encoding."""
    sink = io.BytesIO()
    stream = io.TextIOWrapper(sink, encoding, errors="strict", write_through=True)
    monkeypatch.setattr(sys, name, stream)
    escape_missing_characters()
    stream.write(text)
    return sink.getvalue().decode(encoding)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", TEXT),
        ("UTF8", TEXT),
        ("latin-1", "Zoë, \\u5bf9\\u8bdd \\ud83d\\ude00 'a\\n'"),
        ("ascii", "Zo\\u00eb, \\u5bf9\\u8bdd \\ud83d\\ude00 'a\\n'"),
        ("gb2312", "Zo\\u00eb, 对话 \\ud83d\\ude00 'a\\n'"),
    ],
)
def test_missing_characters_are_escapes(
    name: str, encoding: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written(monkeypatch, name, encoding, TEXT) == expected


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_keeps_its_value(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"text": TEXT}
    text = json.dumps(value, ensure_ascii=False)
    assert json.loads(written(monkeypatch, "stdout", encoding, text)) == value


def test_a_stream_without_an_encoding_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    escape_missing_characters()
    stream.write(TEXT)
    assert stream.getvalue() == TEXT
