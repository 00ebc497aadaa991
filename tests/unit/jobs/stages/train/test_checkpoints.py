"""Only whole checkpoints count."""

from __future__ import annotations

from pathlib import Path

from selfemo_jobs.stages.train.checkpoints import (
    MARK,
    checkpoint,
    delete_others,
    mark_whole,
    whole_steps,
)


def write(folder: Path, step: int) -> Path:
    path = checkpoint(folder, step)
    (path / "global_step").mkdir(parents=True)
    (path / "global_step" / "state.pt").write_bytes(b"12345")
    (path / "trainer_state.json").write_bytes(b"{}")
    return path


def test_one_without_its_mark_is_not_whole(tmp_path: Path) -> None:
    mark_whole(write(tmp_path, 2))
    write(tmp_path, 10)
    mark_whole(write(tmp_path, 4))
    assert whole_steps(tmp_path) == [2, 4]
    assert whole_steps(tmp_path / "none") == []


def test_one_that_lost_something_is_not_whole(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        mark_whole(write(tmp_path, step))
    (checkpoint(tmp_path, 2) / "trainer_state.json").unlink()
    (checkpoint(tmp_path, 4) / "global_step" / "state.pt").write_bytes(b"123")
    (checkpoint(tmp_path, 6) / MARK).write_bytes(b'{"trainer_st')
    assert whole_steps(tmp_path) == [8]


def test_others_are_deleted(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        write(tmp_path, step)
    (tmp_path / "kept").mkdir()
    delete_others(tmp_path, [4])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-4", "kept"]
