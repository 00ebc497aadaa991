from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from tests.support.s3_server import S3Server

from selfemo_api.spec import StorageSpec
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.source_files import SourceFiles
from selfemo_jobs.datasets.text_files import SourceFile
from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.store import ObjectNotFound, Store, join, open_store
from selfemo_jobs.store.interface import ObjectInfo, object_uri
from selfemo_jobs.store.local_files import replacing


def test_local_files_are_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFEMO_DATA", f"sets={tmp_path}")
    path = tmp_path / "dev.csv"
    path.write_text("x")
    for uri in (f"file://{path}", "data://sets/dev.csv"):
        files = fetch_source(uri, None, tmp_path / "work")
        assert files == SourceFiles(uri, (SourceFile(path, uri),))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", ["gone.csv", "folder"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match=f"{name} (does not exist|contains no data file)"):
        fetch_source(f"file://{tmp_path}/{name}", None, tmp_path)


def test_s3_file_is_copied_again_each_time(s3: S3Server, tmp_path: Path) -> None:
    spec = s3.storage(tmp_path.name)
    store = open_store(spec)
    uri = join(spec.uri, "sets/dev.csv")
    with pytest.raises(BadInput, match=r"dev\.csv does not exist"):
        fetch_source(uri, store, tmp_path)
    for content in (b"one", b"two"):
        store.put(uri, content)
        (file,) = fetch_source(uri, store, tmp_path).files
        assert (file.uri, file.path.name, file.read_bytes()) == (uri, "dev.csv", content)


def test_run_in_a_folder_reads_s3_with_the_storage_options(s3: S3Server, tmp_path: Path) -> None:
    spec = s3.storage(tmp_path.name)
    uri = join(spec.uri, "dev.csv")
    open_store(spec).put(uri, b"x")
    local = StorageSpec(
        uri=f"file://{tmp_path}/store", endpoint=spec.endpoint, path_style=spec.path_style
    )
    (file,) = fetch_source(uri, open_store(local), tmp_path).files
    assert file.read_bytes() == b"x"
    with pytest.raises(BadInput, match="reading S3 requires storage options"):
        fetch_source(uri, None, tmp_path)


class _Bucket:
    """A store with keys that whoever may write to the bucket has chosen."""

    storage = StorageSpec(uri="s3://bucket/runs")

    def __init__(self, *names: str) -> None:
        self._names = names

    def list(self, prefix: str) -> list[ObjectInfo]:
        return [ObjectInfo(object_uri(prefix, name), 1) for name in self._names]

    def download(self, uri: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uri)


@pytest.mark.parametrize(
    "name",
    [
        "//tmp/a.jsonl",
        "x/../../../../outside/a.jsonl",
        "x/../../../../outside/README.md",
        "x//a.jsonl",
        "x\0/a.jsonl",
    ],
)
@pytest.mark.parametrize("pattern", ["/", "/**"])
def test_a_key_that_leads_out_of_the_scratch_folder_is_not_copied(
    name: str, pattern: str, tmp_path: Path
) -> None:
    work = tmp_path / "a" / "work"
    store = cast("Store", _Bucket("ok.jsonl", name.removeprefix("/")))
    if "outside/a" in name or ("outside" in name and pattern == "/**"):  # hidden, so not read
        (file,) = fetch_source(f"s3://bucket/d{pattern}", store, work).files
        assert file.path.name == "ok.jsonl"
    else:
        with pytest.raises(BadInput, match="its name contains an empty part"):
            fetch_source(f"s3://bucket/d{pattern}", store, work)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in written if not path.is_relative_to(work)] == []


class _SharedBucket(_Bucket):
    """A store whose first download is still under way while a second process copies too."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.first_writes, self.second_writes = Event(), Event()

    def download(self, uri: str, path: Path) -> None:
        with replacing(path) as file:
            file.write(uri.encode())
            if self.first_writes.is_set():
                self.second_writes.set()
            self.first_writes.set()
            assert self.second_writes.wait(60)


def test_processes_that_share_a_scratch_folder_copy_the_same_source(tmp_path: Path) -> None:
    bucket = _SharedBucket("part-1.jsonl", "part-2.jsonl")
    store, uri = cast("Store", bucket), "s3://bucket/d/"
    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch_source, uri, store, tmp_path)
        assert bucket.first_writes.wait(60)
        second = pool.submit(fetch_source, uri, store, tmp_path)
        for files in (first.result().files, second.result().files):
            assert [file.read_bytes().decode() for file in files] == [f.uri for f in files]


class _Replaced(_Bucket):
    """A store whose objects are deleted after they were listed."""

    def download(self, uri: str, path: Path) -> None:
        raise ObjectNotFound(uri)


def test_a_source_that_is_replaced_while_it_is_copied_may_be_read_later(tmp_path: Path) -> None:
    store = cast("Store", _Replaced("part-1.jsonl"))
    with pytest.raises(Unavailable, match=r"part-1\.jsonl was deleted while s3://bucket/d was"):
        fetch_source("s3://bucket/d/", store, tmp_path)


def test_keys_with_blanks(s3: S3Server, tmp_path: Path) -> None:
    store = open_store(s3.storage(tmp_path.name))
    base = join(store.storage.uri, "my%20data")
    for name in ("part%201.jsonl", "part%202.jsonl"):
        store.put(f"{base}/{name}", name.encode())
    for uri in (f"{base}/part%201.jsonl", f"{base}/", f"{base}/part*1.jsonl"):
        files = fetch_source(uri, store, tmp_path / "work").files
        assert files[0].uri == f"{base}/part%201.jsonl"
        assert (files[0].path.name, files[0].read_bytes()) == ("part 1.jsonl", b"part%201.jsonl")


def test_a_name_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    path = tmp_path / b"caf\xe9.jsonl".decode("utf-8", "surrogateescape")
    path.write_text("{}")
    for uri in (f"file://{tmp_path}", f"file://{tmp_path}/*.jsonl"):
        (file,) = fetch_source(uri, None, tmp_path).files
        assert (file.uri, file.path) == (f"file://{tmp_path}/caf%E9.jsonl", path)
    (file,) = fetch_source(file.uri, None, tmp_path).files
    assert file.path == path


@pytest.mark.parametrize("name", ["sets/a.jsonl", "sets", "sets/*.jsonl", "closed", "closed/a.csv"])
def test_what_may_not_be_read_is_bad_input(name: str, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "a.jsonl").touch(mode=0o200)
    (tmp_path / "closed").mkdir(mode=0o300)
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from selfemo_jobs.datasets.fetch import fetch_source\n"
        "from selfemo_jobs.errors import BadInput\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        f"try: fetch_source('file:///proc/self/cwd/{name}', None, Path('work'))\n"
        "except BadInput as error: print(error); sys.exit(2)\n"
    )
    tmp_path.chmod(0o755)
    done: Any = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert ": grant this user (" in done.stdout or "does not exist" in done.stdout
