from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.study.made_up import DOCUMENT, finish, study

from selfemo_study import study_runner
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.finished_rows import read_rows
from selfemo_study.row_result import RowResult
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import Kind, StudyError
from selfemo_study.study_folders import StudyFolders
from selfemo_study.study_runner import run, select_rows, select_seeds

RIGHT = {(0, "dev"): 1, (1, "dev"): 2, (0, "test"): 1, (1, "test"): 2}


def pretend(
    folders: StudyFolders, done: list[str], monkeypatch: pytest.MonkeyPatch, fail: str = ""
) -> None:
    """Replace the runners by one that only writes a result."""

    def runner(work: RowTask) -> RowResult:
        if work.row.name == fail:
            raise StudyError("it broke")
        done.append(f"{work.row.name} {work.seed}")
        outcomes = ["Baseline", "Promoted"]
        return finish(work.study, folders, work.row.name, work.seed, RIGHT, outcomes, best=1)

    monkeypatch.setattr(study_runner, "RUNNERS", dict.fromkeys(Kind, runner))


def go(
    folders: StudyFolders, done: list[str], monkeypatch: pytest.MonkeyPatch, fail: str = ""
) -> int:
    """Run the study and return how many rows failed."""
    pretend(folders, done, monkeypatch, fail)
    made = study()
    lines: list[str] = []
    volumes = DataVolumes.of({}, folders)
    failed = run(
        made, select_rows(made, None), select_seeds(made, None), folders, volumes, lines.append
    )
    assert sum("FAILED: it broke" in line for line in lines) == failed
    return failed


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, done = StudyFolders(tmp_path), list[str]()
    assert go(folders, done, monkeypatch, fail="no-cap") == 2
    rows = ["main", "majority", "constant"]
    assert done == [f"{row} {seed}" for seed in (1, 2) for row in rows]
    done.clear()
    assert go(folders, done, monkeypatch) == 0
    assert done == ["no-cap 1", "no-cap 2"]
    done.clear()
    assert go(folders, done, monkeypatch) == 0
    assert done == []


def test_a_row_may_have_fewer_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**row, "seeds": [2]} if row["name"] == "no-cap" else row for row in DOCUMENT["rows"]]
    made, folders, done = study(rows=rows), StudyFolders(tmp_path), list[str]()
    pretend(folders, done, monkeypatch)
    assert run(made, ["main", "no-cap"], [1, 2], folders, DataVolumes.of({}, folders), print) == 0
    assert done == ["main 1", "main 2", "no-cap 2"]
    assert not any(found.row == "no-cap" for found in read_rows(made, folders).missing)


def test_a_row_that_would_be_refused_stops_all_before_anything_runs(tmp_path: Path) -> None:
    made = study(
        rows=[*DOCUMENT["rows"], {"name": "odd", "kind": "evolution", "why": "?", "set": {"x": 1}}]
    )
    folders = StudyFolders(tmp_path / "studies")
    with pytest.raises(StudyError, match=r"row odd: spec\.x: unknown field"):
        run(made, ["main", "odd"], [1], folders, DataVolumes.of({}, folders), print)
    assert not folders.root.exists()


def test_rows_and_seeds_are_of_the_study() -> None:
    made = study()
    assert select_rows(made, "constant, main") == ["constant", "main"]
    assert select_seeds(made, "2") == [2]
    for wrong in ("3", "1,x"):
        with pytest.raises(StudyError, match="--seeds"):
            select_seeds(made, wrong)
    with pytest.raises(StudyError, match="no row `x`"):
        select_rows(made, "main,x")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="data volume `made`"):
        DataVolumes.of({"made": str(tmp_path / "none")}, StudyFolders(tmp_path))
