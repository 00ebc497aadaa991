"""Folders that are written whole or not at all (files: see ``test_folder.py``)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfemo_jobs.store.local_files import replacing_folder, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_made_and_replaced_whole(tmp_path: Path) -> None:
    model = tmp_path / "models" / "one"
    for name in ("first", "second"):
        with replacing_folder(model) as new:
            assert names(new) == []
            assert not (model / name).exists()
            (new / name).write_text(name)
        assert names(model) == [name]
    assert names(model.parent) == ["one"]


def test_a_block_that_fails_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    model = tmp_path / "one"
    write_file(model / "old", b"1")
    with pytest.raises(RuntimeError), replacing_folder(model) as new:
        (new / "half").touch()
        raise RuntimeError
    assert names(model) == ["old"]
    assert names(tmp_path) == ["one"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    write_file(tmp_path / ".one.selfemo-new" / "half", b"1")
    with replacing_folder(tmp_path / "one") as new:
        (new / "whole").touch()
    assert names(tmp_path) == ["one"]
    assert names(tmp_path / "one") == ["whole"]


def test_a_file_is_written_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


def test_a_pipe_is_written_and_the_target_of_a_link_is_replaced(tmp_path: Path) -> None:
    pipe, target, link = (tmp_path / name for name in ("pipe", "target", "link"))
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_file(pipe, b"some")
    assert os.read(reader, 10) == b"some"
    os.close(reader)
    link.symlink_to(target)
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_the_folder_of_somebody_else_with_the_ending_new_stays(tmp_path: Path) -> None:
    write_file(tmp_path / "one.new" / "mine", b"1")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with replacing_folder(tmp_path / "link") as new:
        (new / "whole").touch()
    assert names(tmp_path / "one.new") == ["mine"]
    assert names(tmp_path / "one") == ["whole"]
    assert (tmp_path / "link").is_symlink()
