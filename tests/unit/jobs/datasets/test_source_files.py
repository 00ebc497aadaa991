"""Several files: folders, patterns, S3 prefixes, splits, compressed files, equal ids."""

from __future__ import annotations

import glob
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.dialogue_files import (
    dialogue,
    read,
    row_objects,
    write_lines,
    write_parquet,
    write_table,
)
from tests.support.s3_server import S3Server

from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.load import read_source
from selfemo_jobs.datasets.reading import ReadOptions
from selfemo_jobs.datasets.source_files import decode_pattern, matches_pattern
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store import join, open_store


def put(path: Path, *names: str) -> Path:
    """Write a JSON Lines file with a one-turn dialogue for each name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"id": name, "turns": [{"speaker": "A", "text": f"I am {name}"}]} for name in names]
    return write_lines(path, lines)


def ids(uri: str) -> list[str]:
    return [d.id for d in read(uri).dialogues]


class TestFolders:
    def test_all_data_files_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        put(tmp_path / "b.jsonl", "3")
        put(tmp_path / "a.jsonl", "1", "2")
        put(tmp_path / "c" / "d.ndjson", "4")
        (tmp_path / "README.md").write_text("Not data.")
        (tmp_path / "notes.txt").write_text("Not data.")
        put(tmp_path / ".trash" / "old.jsonl", "x")
        for uri in (tmp_path.as_uri(), f"{tmp_path.as_uri()}/"):
            assert ids(uri) == ["1", "2", "3", "4"]

    def test_packed_files(self, tmp_path: Path) -> None:
        path = put(tmp_path / "a.jsonl", "1")
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
        assert ids(tmp_path.as_uri()) == ["1"]

    def test_no_data(self, tmp_path: Path) -> None:
        (tmp_path / "README.md").write_text("Not data.")
        with pytest.raises(
            BadInput, match=r"contains no data file \(supported extensions: \.jsonl"
        ):
            ids(tmp_path.as_uri())

    def test_files_of_several_formats(self, tmp_path: Path) -> None:
        put(tmp_path / "a.jsonl", "1")
        write_table(tmp_path / "b.csv", [{"text": "Hi"}])
        with pytest.raises(BadInput, match=r"several formats \(1 JSONL, 1 CSV\): use a pattern"):
            ids(tmp_path.as_uri())

    @pytest.mark.parametrize(
        "names",
        [
            ("train.jsonl", "test.jsonl"),
            ("my_train_x.jsonl", "my-dev-x.jsonl"),
            ("train/a.jsonl", "validation/a.jsonl"),
            ("Train.jsonl", "EVAL.jsonl"),
        ],
    )
    def test_splits_are_not_mixed(self, tmp_path: Path, names: tuple[str, str]) -> None:
        for number, name in enumerate(names):
            put(tmp_path / name, str(number))
        with pytest.raises(
            BadInput, match=r"files of several splits \(train: .*\): select one with"
        ):
            ids(tmp_path.as_uri())

    def test_names_with_the_letters_of_a_split(self, tmp_path: Path) -> None:
        for number, name in enumerate(("training1.jsonl", "train2.jsonl", "devices.jsonl")):
            put(tmp_path / name, str(number))
        assert sorted(ids(tmp_path.as_uri())) == ["0", "1", "2"]

    def test_split_of_a_folder_by_name(self, tmp_path: Path) -> None:
        put(tmp_path / "train.jsonl", "1")
        put(tmp_path / "dev.jsonl", "2")
        assert ids(f"{tmp_path.as_uri()}?split=validation") == ["2"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.jsonl", "train.jsonl"]
        with pytest.raises(
            BadInput, match="has no split test; it has train, validation: specify one"
        ):
            ids(f"{tmp_path.as_uri()}?split=test")


class TestPatterns:
    def test_pattern(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("part-2", "part-1", "part-10", "other"):
            put(tmp_path / "talk" / f"{name}.jsonl", name)
        monkeypatch.setenv("SELFEMO_DATA", f"mine={tmp_path}")
        assert ids("data://mine/talk/part-*.jsonl") == ["part-1", "part-10", "part-2"]
        assert ids("data://mine/*/part-?.jsonl") == ["part-1", "part-2"]
        assert ids("data://mine/**/[op]*r*.jsonl") == ["other", "part-1", "part-10", "part-2"]

    def test_no_match(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match=r"x-\*\.csv: no file matches the pattern in "):
            ids(f"{tmp_path.as_uri()}/x-*.csv")

    @pytest.mark.parametrize("pattern", ["*/../../x*", "a*/%2E%2E/b"])
    def test_pattern_must_not_leave_its_folder(self, tmp_path: Path, pattern: str) -> None:
        with pytest.raises(BadInput, match="must not point outside its folder"):
            ids(f"{tmp_path.as_uri()}/{pattern}")

    def test_names_with_signs_of_patterns(self, tmp_path: Path) -> None:
        put(tmp_path / "talk [1].jsonl", "1")
        put(tmp_path / "talk 1.jsonl", "2")
        base = tmp_path.as_uri()
        assert ids(f"{base}/talk%20[1].jsonl") == ["1"]
        assert ids(f"{base}/talk%20%5B1%5D.jsonl") == ["1"]
        assert ids(f"{base}/talk%20[12].jsonl") == ["2"]
        assert ids(f"{base}/talk%20%5B*.jsonl") == ["1"]

    @given(
        name=st.text(st.sampled_from("ab.*?[]"), min_size=1, max_size=6),
        pattern=st.text(st.sampled_from("ab*?"), min_size=1, max_size=5),
    )
    def test_one_name_matches_as_files_do(
        self, tmp_path_factory: pytest.TempPathFactory, name: str, pattern: str
    ) -> None:
        folder = tmp_path_factory.mktemp("names")
        if name in {".", ".."}:
            return
        (folder / name).write_text("x")
        decoded = decode_pattern(pattern)
        names = glob.glob(decoded, root_dir=folder, recursive=True)  # noqa: PTH207
        assert matches_pattern(name, pattern) == (name in names)


class TestSeveralFiles:
    def test_equal_ids_get_the_name_of_their_file(self, tmp_path: Path) -> None:
        put(tmp_path / "a.jsonl", "1", "2")
        put(tmp_path / "sub" / "a.jsonl", "2", "3")
        assert ids(tmp_path.as_uri()) == [
            *("a.jsonl:1", "a.jsonl:2", "sub/a.jsonl:2", "sub/a.jsonl:3")
        ]

    def test_parts_of_one_table_are_one_table(self, tmp_path: Path) -> None:
        whole = [dialogue(str(n), *(("S", f"{n}-{i}") for i in range(3))) for n in range(3)]
        rows = row_objects(whole)
        for number, part in enumerate((rows[:4], rows[4:8], rows[8:])):
            write_parquet(tmp_path / f"train-0000{number}-of-00003.parquet", part)
        content = read(f"{tmp_path.as_uri()}/train-*.parquet", read_labels=False)
        assert content.dialogues == whole

    def test_tables_of_their_own_are_not_joined(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            rows = row_objects([dialogue("1", ("S", f"{name}1"), ("S", f"{name}2"))])
            write_table(tmp_path / f"{name}.csv", rows)
        content = read(tmp_path.as_uri(), read_labels=False)
        assert content.dialogues == [
            dialogue("a.csv:1", ("S", "a1"), ("S", "a2")),
            dialogue("b.csv:1", ("S", "b1"), ("S", "b2")),
        ]

    def test_errors_name_the_file(self, tmp_path: Path) -> None:
        put(tmp_path / "a b.jsonl", "1")
        (tmp_path / "c.jsonl").write_text('{"id": 1}\n')
        with pytest.raises(BadInput) as caught:
            ids(tmp_path.as_uri())
        assert str(caught.value).startswith(f"{tmp_path.as_uri()}/c.jsonl line 1: `turns` is miss")

    def test_hash_follows_from_names_and_bytes(self, tmp_path: Path) -> None:
        put(tmp_path / "a.jsonl", "1")
        put(tmp_path / "b.jsonl", "2")
        digest = fetch_source(tmp_path.as_uri(), None, tmp_path).sha256
        assert digest == fetch_source(tmp_path.as_uri(), None, tmp_path).sha256
        put(tmp_path / "b.jsonl", "3")
        assert digest != fetch_source(tmp_path.as_uri(), None, tmp_path).sha256


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(b"{}", mtime=0)[:-5], "is a damaged gzip file"),
        (b"\x1f\x8bxx", "is a damaged gzip file"),
        (b"PK\x03\x04....", "is a ZIP archive or an Excel file"),
        (gzip.compress(b"\x80\x04K\x01.", mtime=0), "unpickling can run code"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
        (b"just some words\nand more\n", "the format cannot be inferred from its name or content"),
    ],
)
def test_files_that_are_not_read(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "data"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=message):
        read(path)


@pytest.mark.parametrize("options", ["splits=a", "split=a&split=b", "split=", "split=a&x=1"])
def test_options_that_are_unknown(tmp_path: Path, options: str) -> None:
    if options.startswith("splits"):
        with pytest.raises(BadInput, match=r"no file matches the pattern|does not exist"):
            ids(f"{tmp_path.as_uri()}/a?{options}")
    else:
        with pytest.raises(BadInput, match="only `split`, `config` and `revision` are"):
            ids(f"{tmp_path.as_uri()}?{options}")


class TestS3:
    def read(self, uri: str, s3: S3Server, work: Path) -> list[str]:
        store = open_store(s3.storage(work.name))
        files = fetch_source(uri, store, work)
        content = read_source(files, None, ReadOptions(None))
        return [d.id for d in content.dialogues]

    def test_prefixes_and_patterns(self, s3: S3Server, tmp_path: Path) -> None:
        store, work = open_store(s3.storage(tmp_path.name)), tmp_path / "work"
        base = join(store.storage.uri, "sets")
        for name, key in (("a", "talk/part-1"), ("b", "talk/part-2"), ("c", "talk/deep/part-3")):
            store.upload(put(tmp_path / "x.jsonl", name), f"{base}/{key}.jsonl")
        store.put(f"{base}/talk/README.md", b"Not data.")
        for uri in (f"{base}/talk/", f"{base}/talk"):
            assert self.read(uri, s3, work) == ["c", "a", "b"]
        assert self.read(f"{base}/talk/part-*.jsonl", s3, work) == ["a", "b"]
        assert self.read(f"{base}/**/part-[13].jsonl", s3, work) == ["c", "a"]
        store.remove(f"{base}/talk/deep")
        assert self.read(f"{base}/talk/", s3, work) == ["a", "b"]
        with pytest.raises(BadInput, match=r"part-9\*: no object matches the pattern"):
            self.read(f"{base}/talk/part-9*", s3, work)
        with pytest.raises(BadInput, match="sets/none/ does not exist"):
            self.read(f"{base}/none/", s3, work)

    def test_split_of_a_prefix(self, s3: S3Server, tmp_path: Path) -> None:
        store, work = open_store(s3.storage(tmp_path.name)), tmp_path / "work"
        base = join(store.storage.uri, "hub")
        for split in ("train", "test"):
            file = write_parquet(tmp_path / "x.parquet", [{"dialogue": split, "text": "Hi"}])
            store.upload(file, f"{base}/data/{split}-00000-of-00001.parquet")
        assert self.read(f"{base}?split=test", s3, work) == ["test"]
        with pytest.raises(BadInput, match="contains files of several splits"):
            self.read(base, s3, work)


def test_format_of_compressed_table(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [{"text": "Hi"}])
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    assert read(tmp_path / "t.csv.gz").kind is DataFormat.CSV
