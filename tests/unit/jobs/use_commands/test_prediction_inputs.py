"""What `selfemo predict` reads: every format, plain text, standard input, several files."""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.dialogue_files import WRITERS, compressed, dialogue, write_lines, write_table

from selfemo_jobs.data_commands.options import set_data_volumes
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.command_line import add_data_option
from selfemo_jobs.use_commands.prediction_inputs import DialogueInput, open_input
from selfemo_jobs.use_commands.use_options import add_input_arguments

Read = Callable[..., dict[str, list[tuple[str, str]]]]

TALKS = [
    dialogue("a", ("Ann", "Where are the keys?", "calm"), ("Bo", "No idea.", "cross")),
    dialogue("b", ("Ann", "I found them!", "never heard of"), ("Bo", "哈哈，太好了！")),
]
CONTENT = {talk.id: [(turn.speaker, turn.text) for turn in talk.turns] for talk in TALKS}


def opened(work: Path, *words: str | Path) -> DialogueInput:
    parser = argparse.ArgumentParser()
    add_input_arguments(parser)
    add_data_option(parser)
    arguments = parser.parse_args([str(word) for word in words])
    set_data_volumes(arguments.data)
    return open_input(arguments, work)


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read inputs, and return speakers and texts by the id of the dialogue."""
    monkeypatch.setenv("SELFEMO_DATA", "")
    work = tmp_path / "work"
    work.mkdir()

    def call(*words: str | Path) -> dict[str, list[tuple[str, str]]]:
        dialogues = opened(work, *words).dialogues()
        return {d.id: [(turn.speaker, turn.text) for turn in d.turns] for d in dialogues}

    return call


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


class TestFormats:
    @pytest.mark.parametrize("name", sorted(WRITERS))
    def test_each_format_with_unknown_labels(self, name: str, read: Read, tmp_path: Path) -> None:
        assert list(read(WRITERS[name](tmp_path, TALKS)).values()) == list(CONTENT.values())

    def test_texts_whose_names_are_those_of_the_parts_of_a_table(
        self, read: Read, tmp_path: Path
    ) -> None:
        for number, line in enumerate(("Ann: one", "Bo: two")):
            (tmp_path / f"talk-{number:05}-of-00002.txt").write_text(line)
        dialogues = read(f"{tmp_path}/talk-*.txt")
        assert list(dialogues.values()) == [[("Ann", "one")], [("Bo", "two")]]

    @pytest.mark.parametrize("name", ["csv", "jsonl", "parquet"])
    def test_compressed(self, name: str, read: Read, tmp_path: Path) -> None:
        assert read(compressed(WRITERS[name](tmp_path, TALKS))) == CONTENT

    @pytest.mark.parametrize("name", ["jsonl", "list", "document", "parquet", "rows"])
    def test_without_an_ending_the_content_decides(
        self, name: str, read: Read, tmp_path: Path
    ) -> None:
        path = WRITERS[name](tmp_path, TALKS).rename(tmp_path / "talks")
        assert read(path) == CONTENT

    def test_meld(self, read: Read, shared_data: Path) -> None:
        talks = read(shared_data / "meld" / "test_sent_emo.csv")
        assert sum(map(len, talks.values())) == 2610

    def test_named_columns(self, read: Read, tmp_path: Path) -> None:
        path = write_table(tmp_path / "t.csv", [{"Satz": "Hallo", "Wer": "Ina"}])
        columns = ("--columns", "text=Satz,speaker=Wer")
        assert read(path, *columns) == {"1": [("Ina", "Hallo")]}

    def test_named_format(self, read: Read, tmp_path: Path) -> None:
        path = tmp_path / "talk.txt"
        path.write_text("speaker,text\nAnn,Hi\n")
        assert read(path, "--format", "CSV") == {"1": [("Ann", "Hi")]}
        path = path.rename(tmp_path / "talk.csv")
        assert read(path, "--format", "Text") == {"1": [("A", "speaker,text"), ("B", "Ann,Hi")]}


class TestPlainText:
    @pytest.mark.parametrize("name", ["talk.txt", "talk", "talk.md", "talk.txt.gz"])
    def test_file(self, name: str, read: Read, tmp_path: Path) -> None:
        path = tmp_path / name.removesuffix(".gz")
        path.write_text("\ufeffAnn: [sigh] I lost, again.\r\nBo: Oh no!\r\n\r\nAnn: Hi\r\n")
        path = compressed(path) if name.endswith(".gz") else path
        assert read(path) == {
            "1": [("Ann", "[sigh] I lost, again."), ("Bo", "Oh no!")],
            "2": [("Ann", "Hi")],
        }

    def test_text_that_looks_like_json(self, read: Read, tmp_path: Path) -> None:
        path = tmp_path / "talk.txt"
        path.write_text("[sigh] I lost.\n{oh} no\n")
        assert read(path) == {"1": [("A", "[sigh] I lost."), ("B", "{oh} no")]}

    @pytest.mark.parametrize("name", ["talk", "talk.txt.gz"])
    def test_columns_make_a_table(self, name: str, read: Read, tmp_path: Path) -> None:
        path = tmp_path / name.removesuffix(".gz")
        path.write_text("Satz,Wer\nHallo,Ina\n")
        path = compressed(path) if name.endswith(".gz") else path
        assert read(path, "--columns", "text=Satz,speaker=Wer") == {"1": [("Ina", "Hallo")]}
        assert read(path) == {"1": [("A", "Satz,Wer"), ("B", "Hallo,Ina")]}

    @pytest.mark.parametrize(
        "heading",
        [
            "text,label",
            "\ufeff\r\nid,text\r\n",
            '"Dialogue_ID";"Utterance"',
            "Speaker, Utterance",
            "sentence\temotion",
            "Sr No.,Utterance,Speaker,Emotion",
            "role|content",
        ],
    )
    def test_heading_of_a_table_is_refused(self, heading: str, read: Read, tmp_path: Path) -> None:
        path = tmp_path / "talk.txt"
        path.write_text(f"{heading}\nWell,joy\n")
        with pytest.raises(BadInput) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path} looks like a table: its first line is "
            f"`{heading.strip(chr(0xFEFF)).strip()}`. Use a file extension such as .csv, or "
            "specify the format with `--format CSV` or the columns with `--columns`; `--format "
            "Text` reads it as plain text"
        )
        assert len(read(path, "--format", "Text")) >= 1

    @pytest.mark.parametrize(
        "line",
        [
            "Text, please.",
            "text",
            "Ann: Send me a text, please",
            "Value, they say, is in the message, too",
            "Ann: a,b;c",
            "哈哈，text，好",
        ],
    )
    def test_a_chat_is_not_a_table(self, line: str, read: Read, tmp_path: Path) -> None:
        path = tmp_path / "talk.txt"
        path.write_text(f"{line}\n")
        assert len(read(path)["1"]) == 1

    def test_texts_of_the_command_line(self, read: Read) -> None:
        assert read("--text", "Ann: We\nwon!", "--text", "Bo:  At last") == {
            "1": [("Ann", "We won!"), ("Bo", "At last")]
        }
        assert read("--text", "We won!") == {"1": [("A", "We won!")]}

    def test_a_long_text_is_read_turn_by_turn(self, tmp_path: Path) -> None:
        path = tmp_path / "talk.txt"
        path.write_text("Hi\n" * 100_000)
        turns = iter(next(opened(tmp_path, path).dialogues()).turns)
        assert next(turns).text == "Hi"


class TestStandardInput:
    @pytest.mark.parametrize("words", [(), ("-",)])
    def test_text(self, words: tuple[str, ...], read: Read, monkeypatch: Any) -> None:
        stdin(monkeypatch, b"We won!\nAt last.\n")
        assert read(*words) == {"1": [("A", "We won!"), ("B", "At last.")]}

    @pytest.mark.parametrize("name", ["jsonl", "parquet", "rows"])
    def test_data(self, name: str, read: Read, tmp_path: Path, monkeypatch: Any) -> None:
        stdin(monkeypatch, WRITERS[name](tmp_path, TALKS).read_bytes())
        assert read() == CONTENT

    @pytest.mark.parametrize("words", [("--format", "CSV"), ("--columns", "text=text")])
    @pytest.mark.parametrize("name", ["csv", "semicolons", "tsv"])
    def test_table_needs_a_format_or_columns(
        self, name: str, words: tuple[str, ...], read: Read, tmp_path: Path, monkeypatch: Any
    ) -> None:
        data = WRITERS[name](tmp_path, TALKS).read_bytes()
        stdin(monkeypatch, data)
        with pytest.raises(BadInput, match=r"^stdin looks like a table: its first line is `dialo"):
            read()
        stdin(monkeypatch, data)
        assert read(*words) == CONTENT

    @pytest.mark.parametrize("name", ["jsonl", "parquet", "rows"])
    def test_columns_of_data_that_is_not_a_table_of_text(
        self, name: str, read: Read, tmp_path: Path, monkeypatch: Any
    ) -> None:
        stdin(monkeypatch, WRITERS[name](tmp_path, TALKS).read_bytes())
        assert read("--columns", "text=text") == CONTENT

    def test_beside_files(self, read: Read, tmp_path: Path, monkeypatch: Any) -> None:
        stdin(monkeypatch, b"We won!")
        path = WRITERS["csv"](tmp_path, TALKS[:1])
        assert list(read("-", path)) == ["stdin:1", f"{path.relative_to('/')}:a"]


class TestSeveralFiles:
    def test_ids_begin_with_the_name_of_the_file(self, read: Read, tmp_path: Path) -> None:
        for name in ("a.csv", "old/b.csv"):
            path = tmp_path / "talks" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(path, [{"dialogue": "d", "speaker": "A", "text": name}])
        expected = {"a.csv:d": [("A", "a.csv")], "old/b.csv:d": [("A", "old/b.csv")]}
        folder = tmp_path / "talks"
        assert read(folder / "a.csv", folder / "old" / "b.csv") == expected
        assert read(folder) == expected
        assert read(folder / "**" / "*.csv") == expected
        assert read("data://mine/", "--data", f"mine={folder}") == expected

    def test_relative_paths(
        self, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("a.txt", "b.txt"):
            Path(name).write_text("Hi")
        assert list(read("a.txt", tmp_path / "b.txt")) == ["a.txt:1", "b.txt:1"]

    def test_names_in_ids_are_as_they_are(self, read: Read, tmp_path: Path) -> None:
        names = ["day 1.csv", "对话.csv", "100%25.csv"]
        folder = tmp_path / "Gespräche"
        folder.mkdir()
        for name in names:
            write_table(folder / name, [{"dialogue": "d", "text": "Hi"}])
        expected = [f"{name}:d" for name in names]
        assert list(read(*(folder / name for name in names))) == expected
        assert sorted(read(folder)) == sorted(expected)

    def test_the_same_file_counts_once(
        self, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = WRITERS["csv"](tmp_path, TALKS)
        assert read(path, path) == CONTENT
        monkeypatch.chdir(tmp_path)
        words = ("./d.csv", "d.csv", path, path.as_uri())
        assert read(*words) == CONTENT
        assert [str(p) for p in opened(tmp_path, *words).paths] == ["d.csv"]
        Path("link.csv").symlink_to(path)
        assert list(read("link.csv", "./d.csv", "d.csv")) == [
            *("link.csv:a", "link.csv:b", "d.csv:a", "d.csv:b")
        ]


class TestDigest:
    def test_follows_from_content_ids_and_options(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "a.csv", [{"dialogue": "d", "text": "Hi", "note": "Ho"}])
        same = write_table(tmp_path / "b.csv", [{"dialogue": "d", "text": "Hi", "note": "Ho"}])
        digests = [
            opened(tmp_path, *words).digest
            for words in (
                (path,),
                (same,),
                (path, same),
                (same, path),
                (path, "--columns", "text=note"),
                (path, "--format", "Text"),
                ("--text", "Hi"),
                ("--text", "Hi", "--text", "Hi"),
                ("--text", "Hi\nHi"),
            )
        ]
        assert digests[0] == digests[1]
        assert len(set(digests)) == len(digests) - 1


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("t.txt", "", "{path} is empty: it must contain one turn per line"),
            ("t.txt", "\n \n", "{path} is empty: it must contain one turn per line"),
            ("t.txt", "Ann: Hi\nHo\n", "{path} line 2: has no speaker, but the first line has"),
            ("t.csv", "text\nHi\n\n''\n", ""),
            ("t.csv", 'speaker,text\nAnn,Hi\nBo,""\n', "{path} line 3: `text` is empty"),
            ("t.jsonl", '{"id": 1, "turns": [{"text": "Hi"}]}', "{path} line 1: `turns[0].speak"),
            ("t.jsonl", '{"turns": [}', "{path} line 1: not JSON"),
            ("t.parquet", "Hi", "{path} is not a Parquet file"),
        ],
    )
    def test_name_file_and_row(
        self, name: str, text: str, message: str, read: Read, tmp_path: Path
    ) -> None:
        path = tmp_path / name
        path.write_text(text)
        if not message:
            assert read(path)
            return
        words = ("--format", "Parquet") if name == "t.parquet" else ()
        with pytest.raises(BadInput) as caught:
            read(path, *words)
        assert str(caught.value).startswith(message.format(path=path))
        assert "\n" not in str(caught.value)

    def test_missing_file(self, read: Read, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=r"none\.csv does not exist"):
            read(tmp_path / "none.csv")

    def test_empty_standard_input(self, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
        stdin(monkeypatch, b"")
        with pytest.raises(BadInput, match=r"^stdin is empty"):
            read()

    def test_texts_and_files(self, read: Read) -> None:
        with pytest.raises(BadInput, match="specify either --text or INPUT, not both"):
            read("a.csv", "--text", "Hi")

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            ((" ",), "--text number 1: is empty"),
            (("Ann: Hi", "Ho"), "--text number 2: has no speaker"),
        ],
    )
    def test_texts(self, texts: tuple[str, ...], message: str, read: Read) -> None:
        with pytest.raises(BadInput) as caught:
            read(*(word for text in texts for word in ("--text", text)))
        assert str(caught.value).startswith(message)

    def test_unknown_volume_and_malformed_options(self, read: Read, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="--data x: must be NAME=FOLDER"):
            read("data://x/a.csv", "--data", "x")
        with pytest.raises(BadInput, match="the part must be one of dialogue, turn"):
            read("a.csv", "--columns", "textt=a")


def test_warnings_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("I?m here\n")
    source = opened(tmp_path, path)
    assert [list(dialogue.turns) for dialogue in source.dialogues()]
    assert [text.partition(": ")[0] for text in source.warnings()] == [str(path)]
    csv = write_lines(tmp_path / "t.jsonl", [{"text": "Hi"}, {"text": "Ho"}])
    source = opened(tmp_path, csv)
    assert list(source.dialogues())
    assert "each of 2 rows is treated as a separate dialogue" in source.warnings()[0]


def test_a_pipe_is_read(read: Read, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("Ann: one\nBo: two\n",))
    writer.start()
    assert list(read(pipe).values()) == [[("Ann", "one"), ("Bo", "two")]]
    writer.join()


def test_bytes_of_the_command_line_that_are_not_text(read: Read) -> None:
    with pytest.raises(BadInput, match="--text number 1: contains bytes that are not UTF-8"):
        read("--text", "hi " + chr(0xDCE9))
