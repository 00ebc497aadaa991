from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.unit.study.made_up import AFTER, DOCUMENT, MORE, finish, study, write_data

from selfemo_study import study_runner
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.finished_rows import read_rows
from selfemo_study.published_rows import publish
from selfemo_study.row_code import CODE, code_sha256
from selfemo_study.row_result import RowResult
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import Kind, Study, StudyError
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
    volumes = write_data(folders.root)
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
    assert run(made, ["main", "no-cap"], [1, 2], folders, write_data(tmp_path), print) == 0
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


def run_rows(made: Study, folders: StudyFolders, names: list[str]) -> list[str]:
    """Run rows with seed 1 and return the lines about the progress."""
    lines: list[str] = []
    run(made, names, [1], folders, DataVolumes({"made": folders.root}), lines.append)
    return lines


def test_a_control_of_another_run_of_its_evolution_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"kind": "adamatch", "name": "free", "why": "?"}
    made = study(rows=[*DOCUMENT["rows"], MORE, free, AFTER])
    folders, done = StudyFolders(tmp_path), list[str]()
    pretend(folders, done, monkeypatch)
    write_data(tmp_path)
    names = ["main", "majority", "more", "free", "after-more", "constant"]
    assert not any("FAILED" in line for line in run_rows(made, folders, names))
    assert {row for row, seeds in read_rows(made, folders).finished.items() if 1 in seeds} == {
        *names
    }
    for name, outcome in (("main", "Promoted"), ("more", "Control")):
        shutil.rmtree(folders.row(made.row(name), 1).path)
        finish(made, folders, name, 1, RIGHT, ["Baseline", outcome], best=1, steps=6)
    lines = run_rows(made, folders, names)
    refused = {line.partition(",")[0]: line for line in lines if "FAILED" in line}
    assert refused.keys() == {"majority", "free", "after-more"}
    assert "follows from what was changed or run again since (row main): delete" in refused["free"]
    assert "(row more)" in refused["after-more"]
    missing = {found.row for found in read_rows(made, folders).missing if found.seed == 1}
    assert missing == {"no-cap", *refused}
    assert not refused.keys() & {name.rpartition("-")[0] for name in published(made, folders)}


def published(made: Study, folders: StudyFolders) -> list[str]:
    return publish(made, folders, folders.root / "rows.parquet")


def test_a_row_that_began_after_another_run_of_its_evolution_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folders, done = study(), StudyFolders(tmp_path), list[str]()
    write_data(tmp_path)
    pretend(folders, done, monkeypatch, fail="majority")
    assert "it broke" in run_rows(made, folders, ["main", "majority"])[-1]
    shutil.rmtree(folders.row(made.row("main"), 1).path)
    finish(made, folders, "main", 1, RIGHT, ["Baseline", "Promoted"], best=1, steps=6)
    assert "(row main): delete" in run_rows(made, folders, ["majority"])[-1]


def test_a_row_whose_sources_were_corrected_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folders, done = study(), StudyFolders(tmp_path), list[str]()
    pretend(folders, done, monkeypatch)
    write_data(tmp_path)
    names = ["main", "constant"]
    assert not any("FAILED" in line for line in run_rows(made, folders, names))
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(json.dumps({"id": "new", "turns": [{"speaker": "A", "text": "so joy"}]}) + "\n")
    lines = run_rows(made, folders, names)
    assert ["(data://made/test.jsonl): delete" in line for line in lines] == [True, True]
    shutil.rmtree(folders.row(made.row("main"), 1).path)
    assert "FAILED" not in run_rows(made, folders, ["main"])[-1]


def test_a_row_that_ran_with_other_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, folders, done = study(), StudyFolders(tmp_path), list[str]()
    pretend(folders, done, monkeypatch)
    write_data(tmp_path)
    names = ["main", "constant"]
    run_rows(made, folders, names)
    assert not any("other code" in line for line in run_rows(made, folders, names))
    for name in names:
        noted = folders.row(made.row(name), 1).path / CODE
        assert noted.read_text() == f"{code_sha256()}\n"
        noted.write_text("0" * 64)
    lines = run_rows(made, folders, names)
    assert [line.endswith("; ran with other code") for line in lines] == [True, True]


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
