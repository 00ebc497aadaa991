"""A file is written whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from selfemo_api.text.files import is_stream, write_atomically


@pytest.mark.parametrize("data", ["", "über\r\n", b"", b"\x00\xff"])
def test_content_is_written_as_it_is(tmp_path: Path, data: bytes | str) -> None:
    path = tmp_path / "status.json"
    path.write_text("old")
    write_atomically(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    path.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_atomically(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "status.json", "new")


def test_the_content_is_synced_before_it_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "status.json"
    path.write_text("old")
    contents = []
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        contents.append((path.read_text(), os.fstat(descriptor).st_size))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    write_atomically(path, "longer")
    assert contents == [("old", 6)]


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    program = (
        "import pathlib, sys\n"
        "from selfemo_api.text.files import is_stream, write_atomically\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "while True:\n"
        "    for letter in 'ab':\n"
        "        write_atomically(path, letter * 1_000_000)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)])
    try:
        deadline = time.monotonic() + 30
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in range(20):
            content = path.read_text()
            assert content in ("a" * 1_000_000, "b" * 1_000_000)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert path.read_text() in ("a" * 1_000_000, "b" * 1_000_000)
    write_atomically(path, "after")
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_the_target_of_a_link_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, "some")
    assert os.read(reader, 10) == b"some"
    os.close(reader)
    assert pipe.is_fifo()
    assert is_stream(pipe)
    assert not is_stream(tmp_path)


def test_a_file_in_shared_memory_is_written_whole_or_not_at_all() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "status.json")
        path.write_text("old")
        before = path.stat().st_ino
        write_atomically(path, "new")
        assert path.stat().st_ino != before  # it was replaced, not written over
        assert not is_stream(path)


def test_the_file_of_somebody_else_with_the_ending_new_stays(tmp_path: Path) -> None:
    other = tmp_path / "status.json.new"
    other.write_text("mine")
    write_atomically(tmp_path / "status.json", "{}")
    assert other.read_text() == "mine"
