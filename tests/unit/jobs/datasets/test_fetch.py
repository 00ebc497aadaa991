from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.s3_server import S3Server

from selfemo_api.spec import StorageSpec
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.source_files import SourceFiles
from selfemo_jobs.datasets.text_files import SourceFile
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store import join, open_store


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
    with pytest.raises(BadInput, match=f"{name} (does not exist|has no data file)"):
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
    with pytest.raises(BadInput, match="there are no storage options with which to read S3"):
        fetch_source(uri, None, tmp_path)
