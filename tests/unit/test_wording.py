"""The check of words: it finds what it is for, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.wording import ROOT, check_text, main, prose_of, vague_functions


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("the file must be mended", "mended"),
        ("Nobody reads it", "Nobody"),
        ("this is no object", "is no object"),
        ("the recogniser's answer", "recogniser"),
        ("drawn without return", "without return"),
        ("set it, else the run ends", "else"),
        ("the frozen anchor", "anchor"),
    ],
)
def test_a_private_word_is_found(text: str, word: str) -> None:
    (problem,) = check_text("docs/file.md", 3, text)
    assert problem.text == word
    assert str(problem).startswith(f"docs/file.md:3: `{word}`: write ")


@pytest.mark.parametrize(
    "text",
    ["there is no longer a Job", "x = a if b else c", "a recommended value", "judge and reference"],
)
def test_a_usual_word_is_not(text: str) -> None:
    assert list(check_text("docs/file.md", 1, text)) == []


def test_comments_and_sentences_of_code_are_read() -> None:
    source = 'x = "mend"\ny = "we mend"  # anew\n'
    assert list(prose_of(source)) == [(2, '"we mend"'), (2, "# anew")]


def test_the_names_of_functions_are_read() -> None:
    source = "def test_it_is_read_anew():\n    pass\n"
    assert list(prose_of(source)) == [(1, "test it is read anew")]


def test_vague_names_are_counted_by_function() -> None:
    source = "def f(asked):\n    found = 1\n    return found\n\ndef g():\n    value = 1\n"
    assert vague_functions(source) == [(1, "f", ["asked", "found"])]


def test_it_fails_and_says_where(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = ROOT / "build" / "wording-test.md"
    file.parent.mkdir(exist_ok=True)
    file.write_text("Fine.\nIt is mended.\n")
    try:
        assert main([str(file)]) == 1
    finally:
        file.unlink()
    assert capsys.readouterr().out == "build/wording-test.md:2: `mended`: write fix\n"
