"""Only complete checkpoints count."""

from __future__ import annotations

from pathlib import Path

from selfemo_jobs.stages.train.checkpoints import (
    MARKER,
    checkpoint_folder,
    complete_steps,
    delete_other_checkpoints,
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


def test_a_checkpoint_with_a_missing_or_changed_file_is_not_complete(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        mark_complete(write(tmp_path, step))
    (checkpoint_folder(tmp_path, 2) / "trainer_state.json").unlink()
    (checkpoint_folder(tmp_path, 4) / "global_step" / "state.pt").write_bytes(b"123")
    (checkpoint_folder(tmp_path, 6) / MARKER).write_bytes(b'{"trainer_st')
    assert complete_steps(tmp_path) == [8]


def test_other_checkpoints_are_deleted(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write(tmp_path, step)
    (tmp_path / "kept").mkdir()
    delete_other_checkpoints(tmp_path, [4])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-4", "kept"]
