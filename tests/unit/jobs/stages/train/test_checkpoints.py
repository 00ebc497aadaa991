"""Only complete checkpoints count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selfemo_jobs.stages.train.checkpoints import (
    MARKER,
    checkpoint_folder,
    complete_steps,
    delete_other_checkpoints,
    is_whole,
    mark_complete,
)


def write(folder: Path, step: int) -> Path:
    path = checkpoint_folder(folder, step)
    (path / "global_step").mkdir(parents=True)
    (path / "global_step" / "state.pt").write_bytes(b"12345")
    (path / "trainer_state.json").write_bytes(b"{}")
    return path


def test_a_checkpoint_without_a_marker_is_not_complete(tmp_path: Path) -> None:
    mark_complete(write(tmp_path, 2))
    write(tmp_path, 10)
    mark_complete(write(tmp_path, 4))
    assert complete_steps(tmp_path) == [2, 4]
    assert complete_steps(tmp_path / "none") == []


def test_a_marker_has_its_name_only_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, 2)

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mark_complete(path)
    assert not (path / MARKER).exists()


def test_a_checkpoint_with_a_missing_or_changed_file_is_not_complete(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        mark_complete(write(tmp_path, step))
    (checkpoint_folder(tmp_path, 2) / "trainer_state.json").unlink()
    (checkpoint_folder(tmp_path, 4) / "global_step" / "state.pt").write_bytes(b"123")
    (checkpoint_folder(tmp_path, 6) / MARKER).write_bytes(b'{"trainer_st')
    assert complete_steps(tmp_path) == [8]


def test_a_checkpoint_of_an_earlier_version_has_sizes_alone(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    (path / MARKER).write_bytes(b'{"global_step/state.pt":5,"trainer_state.json":2}')
    assert complete_steps(tmp_path) == [2]
    assert is_whole(path)
    (path / "trainer_state.json").write_bytes(b"{")
    assert complete_steps(tmp_path) == []


def test_a_checkpoint_with_other_content_of_the_same_size_is_not_whole(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    mark_complete(path)
    assert is_whole(path)
    (path / "global_step" / "state.pt").write_bytes(b"12045")
    assert complete_steps(tmp_path) == [2]
    assert not is_whole(path)


def test_the_processes_of_a_node_share_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    mark_complete(path)
    (path / "trainer_state.json").write_bytes(b"[]")
    assert [is_whole(path, part, 2) for part in (0, 1)] == [True, False]


def test_a_checkpoint_that_was_marked_in_a_hurry_has_sizes_alone(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    mark_complete(path, hashes=False)
    (path / "trainer_state.json").write_bytes(b"[]")
    assert complete_steps(tmp_path) == [2]
    assert is_whole(path)


def test_a_checkpoint_that_cannot_be_read_is_not_whole(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    mark_complete(path)
    (path / "trainer_state.json").unlink()
    (path / "trainer_state.json").mkdir()
    assert not is_whole(path)


def test_other_checkpoints_are_deleted(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write(tmp_path, step)
    (tmp_path / "kept").mkdir()
    delete_other_checkpoints(tmp_path, [4])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-4", "kept"]
