"""Large files: equal dialogues as of the readers of whole files, errors, memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.dialogue_files import (
    WRITERS,
    compressed,
    dialogue,
    write_lines,
    write_parquet,
    write_table,
)

from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets import dialogue_stream
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_stream import DialogueStream, IdSet, table_groups
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.load import read_source
from selfemo_jobs.datasets.reading import ReadOptions
from selfemo_jobs.datasets.source_files import SourceFiles
from selfemo_jobs.datasets.text_files import SourceFile
from selfemo_jobs.errors import BadInput

UNLABELED = ReadOptions(None, read_labels=False)
TALKS = [
    dialogue("a", ("Ann", "Where are the keys?", "calm"), ("Bo", "No idea,\u2028sorry.", "cross")),
    dialogue(
        "b", ("Ann", "I found them!", "glad"), ("Bo", "哈哈，太好了！"), ("Ann", "»Ja«", "glad")
    ),
]


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files of every size in parts."""
    monkeypatch.setattr(dialogue_stream, "WHOLE_BYTES", 0)


def files_of(path: Path, work: Path = Path("/nonexistent")) -> SourceFiles:
    return fetch_source(path.as_uri(), None, work)


def stream(
    path: Path, kind: DataFormat | None = None, options: ReadOptions = UNLABELED
) -> list[Dialogue]:
    return list(DialogueStream(files_of(path), kind, options))


def refused(path: Path, kind: DataFormat | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        stream(path, kind)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(path.as_uri())


def forbid_whole_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the file was read as a whole")

    monkeypatch.setattr(dialogue_stream, "read_source", fail)
    monkeypatch.setattr(SourceFile, "read_bytes", fail)


IN_PARTS = sorted(WRITERS.keys() - {"list", "document", "sharegpt"})


@pytest.mark.usefixtures("in_parts")
class TestEqual:
    @pytest.mark.parametrize("name", IN_PARTS)
    def test_to_the_readers_of_whole_files(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = WRITERS[name](tmp_path, TALKS)
        whole = read_source(files_of(path), None, UNLABELED)
        forbid_whole_files(monkeypatch)
        source = DialogueStream(files_of(path), None, UNLABELED)
        assert list(source) == whole.dialogues
        assert source.warnings == whole.warnings

    @pytest.mark.parametrize("name", ["csv", "jsonl", "rows"])
    def test_compressed(self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = compressed(WRITERS[name](tmp_path, TALKS))
        whole = read_source(files_of(path), None, UNLABELED).dialogues
        forbid_whole_files(monkeypatch)
        assert stream(path) == whole

    @pytest.mark.parametrize("name", ["list", "document", "sharegpt"])
    def test_documents_are_read_as_a_whole(self, name: str, tmp_path: Path) -> None:
        path = WRITERS[name](tmp_path, TALKS)
        assert stream(path) == read_source(files_of(path), None, UNLABELED).dialogues

    def test_packed_parquet_is_read_as_a_whole(self, tmp_path: Path) -> None:
        path = compressed(WRITERS["parquet"](tmp_path, TALKS))
        assert stream(path) == read_source(files_of(path), None, UNLABELED).dialogues

    @pytest.mark.parametrize("stream_format", [True, False])
    def test_arrow(self, stream_format: bool, tmp_path: Path) -> None:
        import pyarrow as pa

        rows = [{"dialogue": "d", "turn": i, "speaker": "A", "text": f"t{i}"} for i in range(5)]
        table = pa.Table.from_pylist(rows)
        path = tmp_path / "d.arrow"
        opener = pa.ipc.new_stream if stream_format else pa.ipc.new_file
        with opener(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        assert stream(path) == read_source(files_of(path), None, UNLABELED).dialogues

    def test_published_csv(self, shared_data: Path) -> None:
        path = shared_data / "meld" / "test_sent_emo.csv"
        whole = read_source(files_of(path), None, UNLABELED).dialogues
        assert stream(path) == whole  # MELD: as a whole
        assert stream(path, DataFormat.CSV) == whole

    def test_head_of_a_file_without_heading_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        path = tmp_path / "t.csv"
        path.write_bytes(b"\xef\xbb\xbf\r\n\r\n1;Hi you\x92re late\r\n2;Oh\r\n")
        options = ReadOptions(None, False, {"text": "2"})
        expected = read_source(files_of(path), DataFormat.CSV, options)
        source = DialogueStream(files_of(path), DataFormat.CSV, options)
        assert list(source) == expected.dialogues
        assert source.warnings == expected.warnings
        assert "Windows-1252" in source.warnings[0].message

    def test_separator_of_a_file_without_a_heading(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "t.txt"
        path.write_text("Well, well, well\t2\nOh, no!\t1\n")
        options = ReadOptions(None, False, {"text": "1"})
        whole = read_source(files_of(path), None, options).dialogues
        forbid_whole_files(monkeypatch)
        assert stream(path, options=options) == whole
        assert [d.turns[0].text for d in whole] == ["Well, well, well", "Oh, no!"]

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
    @given(
        data=st.data(),
        name=st.sampled_from(IN_PARTS),
        texts=st.lists(
            st.lists(
                st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
                    lambda text: text.strip() and "\0" not in text
                ),
                min_size=1,
                max_size=4,
            ),
            min_size=1,
            max_size=5,
        ),
    )
    def test_of_any_text(
        self, data: st.DataObject, name: str, texts: list[list[str]], tmp_path: Path
    ) -> None:
        talks = [
            Dialogue(f"d{i}", tuple(Utterance("A", text) for text in turns))
            for i, turns in enumerate(texts)
        ]
        path = WRITERS[name](tmp_path, talks)
        try:
            whole: Sequence[Dialogue] | str = read_source(files_of(path), None, UNLABELED).dialogues
        except BadInput as error:
            whole = str(error)
        try:
            parts: Sequence[Dialogue] | str = stream(path)
        except BadInput as error:
            parts = str(error)
        assert parts == whole


@pytest.mark.usefixtures("in_parts")
class TestTables:
    def test_rows_of_a_dialogue_that_are_apart_are_an_error(self, tmp_path: Path) -> None:
        rows = [{"dialogue": d, "text": "Hi"} for d in ("a", "b", "a")]
        path = write_table(tmp_path / "t.csv", rows)
        assert refused(path) == (
            " line 4: rows of dialogue a also appear earlier: in a file of more than 0 MiB, the "
            "rows of a dialogue must be consecutive"
        )

    def test_small_tables_may_have_rows_in_any_order(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dialogue_stream, "WHOLE_BYTES", 1000)
        rows = [{"dialogue": d, "speaker": "A", "text": d} for d in ("a", "b", "a")]
        path = write_table(tmp_path / "t.csv", rows)
        assert [len(talk.turns) for talk in stream(path)] == [2, 1]

    def test_key_that_comes_late(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dialogue_stream, "HEAD_RECORDS", 2)
        rows = [{"dialogue": f"{i}", "text": "Hi"} for i in range(4)]
        path = write_lines(tmp_path / "t.jsonl", [*rows, {**rows[0], "mood": "x"}])
        assert " line 5: rows of dialogue 0" in refused(path)
        path = write_lines(tmp_path / "t.jsonl", [*rows[:3], {**rows[3], "speaker": "Ann"}])
        assert refused(path).startswith(" line 4: `speaker` is not in the first 2 rows")

    def test_numbers_of_rows_in_batches(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dialogue_stream, "HEAD_RECORDS", 2)
        rows = [{"dialogue": "d", "text": text} for text in ("a", "b", "c", "d", "")]
        path = write_parquet(tmp_path / "t.parquet", rows)
        assert refused(path) == " row 5: `text` is empty"

    def test_parts_of_a_table_are_one_table(self, tmp_path: Path) -> None:
        rows = [{"dialogue": d, "speaker": "A", "text": d} for d in "aabbb"]
        for number, part in enumerate((rows[:3], rows[3:])):
            write_parquet(tmp_path / f"train-{number:05d}-of-00002.parquet", part)
        groups = table_groups(files_of(tmp_path))
        assert len(groups) == 1
        assert [len(talk.turns) for talk in DialogueStream(groups[0], None, UNLABELED)] == [2, 3]

    def test_other_files_are_separate(self, tmp_path: Path) -> None:
        for name in ("a.csv", "b.csv"):
            write_table(tmp_path / name, [{"text": name}])
        assert [group.uri for group in table_groups(files_of(tmp_path))] == [
            (tmp_path / name).as_uri() for name in ("a.csv", "b.csv")
        ]


@pytest.mark.usefixtures("in_parts")
class TestErrors:
    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("d.jsonl", b'{"id": "a", "turns": []}\n{"id": "b"}\n', " line 1: `turns` is empty"),
            ("d.jsonl", b'{"text": "a"}\n\n{"text": "b"\n', " line 3: not JSON: Expecting ',' de"),
            ("d.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', " line 2: byte 0xff is not UTF-8"),
            ("d.csv", b"text\nhi\na,b\n", " line 3: 2 fields, the header row has 1"),
            ("d.csv", b'text\nhi\n"a', " line 3: not CSV: a quote in the row that begins here"),
            ("d.csv", b"text\nhi\n\0\n", " line 3: a zero byte"),
            ("d.csv", b"text\n", " has a header row but no other rows"),
            ("d.csv", b"tone\nhi\n", ": no column contains the text"),
            ("d.parquet", b"PAR1xxxxxxxx", " is a damaged Parquet or Arrow file"),
        ],
    )
    def test_place(self, name: str, data: bytes, message: str, tmp_path: Path) -> None:
        path = tmp_path / name
        path.write_bytes(data)
        assert refused(path).startswith(message)

    def test_id_that_is_there_twice(self, tmp_path: Path) -> None:
        turns = [{"speaker": "A", "text": "Hi"}]
        path = write_lines(tmp_path / "d.jsonl", [{"id": i, "turns": turns} for i in "aba"])
        assert refused(path) == " line 3: the id a appears twice"

    def test_damaged_gzip_file(self, tmp_path: Path) -> None:
        path = tmp_path / "d.jsonl.gz"
        path.write_bytes(gzip.compress(b'{"text": "a"}\n' * 9999)[:-20])
        assert "is a damaged gzip file" in refused(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        files = SourceFiles("x.csv", (SourceFile(tmp_path / "x.csv", "x.csv"),))
        with pytest.raises(BadInput, match=r"^x\.csv: No such file or directory$"):
            list(DialogueStream(files, None, UNLABELED))


def test_id_set_keeps_most_ids_as_sorted_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IdSet, "_RECENT", 64)
    ids = IdSet()
    assert all(ids.add(f"d{i}") for i in range(1000))
    assert not any(ids.add(f"d{i}") for i in range(1000))
    assert ids.add("new")


MEASURE = """
import resource, sys
from pathlib import Path
from selfemo_jobs.datasets import dialogue_stream
from selfemo_jobs.datasets.dialogue_stream import DialogueStream
from selfemo_jobs.datasets.reading import ReadOptions
from selfemo_jobs.datasets.source_files import SourceFiles
from selfemo_jobs.datasets.text_files import SourceFile

dialogue_stream.WHOLE_BYTES = dialogue_stream.HEAD_BYTES = 1 << 20

def read(path):
    files = SourceFiles(path, (SourceFile(Path(path), path),))
    return sum(1 for _ in DialogueStream(files, None, ReadOptions(None, read_labels=False)))

read(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
count = read(sys.argv[2])
print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", ["d.jsonl", "d.csv", "d.jsonl.gz", "d.parquet"])
def test_memory_does_not_grow_with_the_file(name: str, tmp_path: Path) -> None:
    def write(count: int) -> Path:
        path = tmp_path / f"{count}-{name}"
        rows = ({"dialogue": f"d{i // 4}", "text": f"{i} " + "word " * 60} for i in range(count))
        if name == "d.parquet":
            return write_parquet(path, list(rows))
        if name == "d.csv":
            return write_table(path, list(rows))
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        path.write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
        return path

    # 3 MB and 15 MB of text: both are read in parts
    command = [sys.executable, "-c", MEASURE, str(write(10_000)), str(write(50_000))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    count, growth = map(int, result.stdout.split())
    assert count == 12_500
    assert growth < 5_000  # KiB; read as a whole, it is over 30 000
