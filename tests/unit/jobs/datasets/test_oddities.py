"""Signs of wrong encodings: what is read as typography, and what is counted and reported."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.dialogue_files import read, write_json, write_lines, write_parquet, write_table

from selfemo_api.spec import DataFormat, Source, Use
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.datasets.reading import Notes
from selfemo_jobs.datasets.text_files import Place

HEAD = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n"


def meld_rows(*texts: str, speaker: str = "Ann") -> str:
    return HEAD + "".join(f'"{text}",{speaker},joy,0,{i}\n' for i, text in enumerate(texts))


def messages(content: Any) -> list[str]:
    return [warning.message for warning in content.warnings]


def texts(content: Any) -> list[str]:
    return [turn.text for dialogue in content.dialogues for turn in dialogue.turns]


class TestWindows1252:
    def test_control_characters_are_typography(self, tmp_path: Path) -> None:
        path = tmp_path / "old.csv"
        path.write_text(
            meld_rows("Don\x92t\x85", "\x93Plain\x94", "One\x97two\x96three", speaker="Zo\x92e"),
            encoding="utf-8",
        )
        content = read(path, ["joy", "fear"])
        assert texts(content) == ["Don’t…", "“Plain”", "One—two–three"]
        assert {turn.speaker for turn in content.dialogues[0].turns} == {"Zo’e"}
        assert messages(content) == [
            "9 Windows-1252 characters converted to Unicode (first: line 2)"
        ]

    def test_bytes_and_control_characters_are_counted_together(self, tmp_path: Path) -> None:
        path = tmp_path / "old.csv"
        data = meld_rows("Plain.", "I\x92m", "You@re").encode()
        path.write_bytes(data.replace(b"@", b"\x92"))
        content = read(path, ["joy", "fear"])
        assert texts(content) == ["Plain.", "I’m", "You’re"]
        assert messages(content)[0].startswith("2 Windows-1252 characters converted to Unicode")

    @pytest.mark.parametrize("code", [0x80, 0x82, 0x8A, 0x8C, 0x8E, 0x99, 0x9B, 0x9C, 0x9E, 0x9F])
    def test_every_sign_of_windows_1252(self, tmp_path: Path, code: int) -> None:
        lines = [{"id": "a", "turns": [{"speaker": "A", "text": f"x{chr(code)}y"}]}]
        content = read(write_lines(tmp_path / "d.jsonl", lines))
        assert texts(content) == [f"x{bytes([code]).decode('cp1252')}y"]

    def test_escaped_characters_and_tables(self, tmp_path: Path) -> None:
        path = tmp_path / "d.jsonl"
        path.write_text('{"id": "a", "turns": [{"speaker": "A", "text": "it\\u0092s"}]}\n')
        assert texts(read(path)) == ["it’s"]
        for file in (
            write_table(tmp_path / "t.csv", [{"text": "it\x92s"}]),
            write_parquet(tmp_path / "t.parquet", [{"text": "it\x92s"}]),
            write_json(
                tmp_path / "i.json",
                {"Ses01F_x": {"sentences": ["it\x92s"], "genders": ["F"], "labels": [2]}},
            ),
        ):
            content = read(file, read_labels=False)
            assert texts(content) == ["it’s"]
            assert "1 Windows-1252 character converted to Unicode" in messages(content)[0]

    def test_letters_in_single_bytes_are_refused_still(self, tmp_path: Path) -> None:
        path = tmp_path / "m.csv"
        path.write_bytes(meld_rows("Ol@").encode().replace(b"@", b"\xe9"))
        with pytest.raises(Exception, match="line 2: byte 0xe9 is not UTF-8"):
            read(path, ["joy", "fear"])

    def test_warning_is_logged(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        path = tmp_path / "m.csv"
        path.write_text(meld_rows("It\x92s", "Isn\x92t I?m"), encoding="utf-8")
        source = Source(name="m", uri=path.as_uri(), use=Use.SELF_PLAY, format=DataFormat.MELD)
        with caplog.at_level(logging.WARNING):
            load_source(source, ["joy", "fear"], path, read_labels=False)
        assert [record.getMessage() for record in caplog.records] == [
            f"{path.as_uri()}: 2 Windows-1252 characters converted to Unicode (first: line 2)",
            f"{path.as_uri()}: 1 question mark within a word, for example `I?m`: an apostrophe "
            "was lost (first: line 3)",
        ]


@pytest.mark.parametrize(
    ("texts", "counts"),
    [
        (["Itâ€™s", "â€œHiâ€\u009d", "â€¦"], {"GarbledText": 4, "ControlCharacters": 1}),
        (["Ã©tÃ© Ã\u00a0 la", "Â£5", "Ã¼ber"], {"GarbledText": 5}),
        (["ðŸ˜€ ok", "itï¿½s"], {"GarbledText": 2}),
        (["æˆ‘ä»¬èµ¢äº†"], {"GarbledText": 1}),
        (["it\ufffds", "\ufffd\ufffd"], {"LostLetters": 3}),
        (["I?m", "company?s", "We?ll see", "DON?T"], {"LostApostrophes": 4}),
        (["l?homme", "j?ai", "qu?il"], {"LostApostrophes": 3}),
        (["a\x07b", "zero\u200bwidth", "\ufeffHi", "soft\u00adhyphen"], {"ControlCharacters": 4}),
    ],
)
def test_oddities_are_counted_and_left(
    tmp_path: Path, texts: list[str], counts: dict[str, int]
) -> None:
    turns = [{"speaker": "A", "text": text} for text in texts]
    content = read(write_lines(tmp_path / "d.jsonl", [{"id": "a", "turns": turns}]))
    assert {warning.kind: warning.count for warning in content.warnings} == counts
    assert [turn.text for turn in content.dialogues[0].turns] == [
        " ".join(t.split()) for t in texts
    ]


@pytest.mark.parametrize(
    "text",
    [
        "What? I see.",
        "Really?Yes!",
        "Café, naïve, Müller, Åsa, Ça va",
        "AMANHÃ… NÃO “IRMÃ”",
        "Â, â, ã: Română",
        "我们赢了！真的？",
        "مرحبا\u200cبك",
        "👩\u200d👧 and ☎\ufe0f",
        "à «bientôt»",
        "\u200fשלום",
        "https://x.org/?q=1",
    ],
)
def test_correct_text_is_not_reported(text: str) -> None:
    notes = Notes()
    assert notes.clean(text, Place("f", 1)) == text
    assert notes.warnings() == ()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_is_changed_in_white_space_and_typography_only(text: str) -> None:
    signs = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
    typography = text.translate({code: sign for code, sign in signs.items() if sign})
    assert Notes().clean(text, Place("f", 1)) == " ".join(typography.split())


def test_a_warning_names_the_first_place(tmp_path: Path) -> None:
    lines = [
        {"id": str(i), "turns": [{"speaker": "A", "text": text}]}
        for i, text in enumerate(("fine", "it\ufffds", "so\ufffd"))
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    assert messages(read(path)) == [
        "2 replacement characters (U+FFFD): letters were lost (first: line 2)"
    ]
