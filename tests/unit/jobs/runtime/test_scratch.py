"""Scratch folders on a volume that several runs share."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selfemo_api.contract import ENV_WORK, StageConfig
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.scratch import locked_scratch

MONTH = 40 * 86_400


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "volume"))
    return tmp_path / "volume"


def of_run(config: StageConfig, run: str) -> StageConfig:
    return config.model_copy(update={"run": run})


def use(config: StageConfig, shard: int = 0) -> Path:
    """Use the scratch folder of a stage once, and leave a checkpoint in it."""
    with locked_scratch(config, shard) as folder:
        (folder / "checkpoint").write_text(config.run)
    return folder


def age(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - MONTH,) * 2)


def test_two_runs_on_one_volume_have_their_own_folders(
    make_config: Callable[..., StageConfig], volume: Path
) -> None:
    config = make_config(Stage.TRAIN)
    first = use(of_run(config, "team/demo-00000001"))
    second = use(of_run(config, "team/demo-00000002"))
    assert first == volume / "team" / "demo-00000001" / "001-train"
    assert (first / "checkpoint").read_text() == "team/demo-00000001"
    assert (second / "checkpoint").read_text() == "team/demo-00000002"


def test_the_next_attempt_and_the_other_shards_have_the_same_folder(
    make_config: Callable[..., StageConfig], volume: Path
) -> None:
    config = make_config(Stage.SELF_PLAY)
    folder = use(config)
    assert use(config) == folder
    with locked_scratch(config, 0) as first, locked_scratch(config, 1) as second:
        assert first == second == folder


def test_an_attempt_that_overlaps_with_another_has_another_folder(
    make_config: Callable[..., StageConfig],
    volume: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = make_config(Stage.TRAIN)
    with locked_scratch(config, 0) as first, locked_scratch(config, 0) as second:
        assert second.name == "001-train-2"
        assert caplog.messages == [f"{first} is used by an earlier attempt that has not ended"]
    assert use(config) == first


def test_folders_of_earlier_generations_are_removed_unless_they_are_used(
    make_config: Callable[..., StageConfig], volume: Path
) -> None:
    old = [use(make_config(stage, generation=1)) for stage in (Stage.SELF_PLAY, Stage.TRAIN)]
    same = use(make_config(Stage.SELF_PLAY, generation=2))
    with locked_scratch(make_config(Stage.TRAIN, generation=1), 0):
        use(make_config(Stage.TRAIN, generation=2))
    assert [folder.exists() for folder in (*old, same)] == [False, True, True]
    use(make_config(Stage.TRAIN, generation=2))
    assert not old[1].exists()


def test_folders_of_other_runs_are_removed_after_a_month_without_use(
    make_config: Callable[..., StageConfig], volume: Path
) -> None:
    config = make_config(Stage.TRAIN, generation=3)
    old, used, recent = (use(of_run(config, f"other/{n}-00000001")) for n in ("a", "b", "c"))
    age(old)
    with locked_scratch(of_run(config, "other/b-00000001"), 0):
        age(used)
        use(config)
    assert not old.parent.exists()
    assert used.is_dir() and recent.is_dir()


def test_each_use_of_a_folder_begins_its_month_again(
    make_config: Callable[..., StageConfig], volume: Path
) -> None:
    config = make_config(Stage.TRAIN)
    used = of_run(config, "other/a-00000001")
    age(use(used))
    folder = use(used)
    use(config)
    assert folder.is_dir()


def test_the_folders_of_the_own_generation_stay_however_old_they_are(
    make_config: Callable[..., StageConfig], volume: Path
) -> None:
    old = use(make_config(Stage.SELF_PLAY, generation=2))
    age(old)
    use(make_config(Stage.TRAIN, generation=2))
    assert old.is_dir()


def test_without_locks_a_folder_is_used_and_none_is_removed(
    make_config: Callable[..., StageConfig], volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(Stage.TRAIN)
    old = use(of_run(config, "other/a-00000001"))
    age(old)

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert use(config).is_dir()
    assert old.is_dir()


def test_a_folder_that_is_removed_before_it_is_locked_is_made_again(
    make_config: Callable[..., StageConfig], volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a file that has no name protects nothing."""
    flock, first = fcntl.flock, iter([True])

    def removed_before(descriptor: int, operation: int) -> None:
        if next(first, False):
            shutil.rmtree(volume)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with locked_scratch(make_config(Stage.TRAIN), 0) as folder:
        assert [path.name for path in folder.iterdir()] == ["selfemo-in-use-0"]


def test_a_folder_that_another_process_removes_is_not_an_error(
    make_config: Callable[..., StageConfig], volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = use(make_config(Stage.SELF_PLAY))
    age(old)
    glob = Path.glob

    def removed_since(folder: Path, pattern: str) -> Iterator[Path]:
        found = list(glob(folder, pattern))
        if folder == old:
            shutil.rmtree(old)
        return iter(found)

    monkeypatch.setattr(Path, "glob", removed_since)
    config = make_config(Stage.SELF_PLAY).model_copy(update={"generation": 2})
    assert use(config).is_dir()
    assert not old.exists()


def test_what_selfemo_has_not_made_stays(
    make_config: Callable[..., StageConfig], volume: Path
) -> None:
    strange = volume / "team" / "thesis" / "001-train"
    strange.mkdir(parents=True)
    (strange / "draft.txt").write_text("x")
    (volume / "team" / "empty").mkdir()
    own = volume / make_config(Stage.TRAIN).run / "000-notes"
    own.mkdir(parents=True)
    age(strange)
    use(make_config(Stage.TRAIN))
    assert (strange / "draft.txt").is_file()
    assert (volume / "team" / "empty").is_dir() and own.is_dir()
