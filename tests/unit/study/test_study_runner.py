from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.study.made_up import DOCUMENT, finish, study

from selfemo_study import study_runner
from selfemo_study.comparison import collect
from selfemo_study.paths import Places
from selfemo_study.programs import Data
from selfemo_study.row_record import RowResult
from selfemo_study.row_work import Work
from selfemo_study.study_config import Kind, StudyError
from selfemo_study.study_runner import row_names, run, seeds_of

RIGHT = {(0, "dev"): 1, (1, "dev"): 2, (0, "test"): 1, (1, "test"): 2}


def pretend(
    places: Places, done: list[str], monkeypatch: pytest.MonkeyPatch, fail: str = ""
) -> None:
    """Have programs that only leave their result behind."""

    def program(work: Work) -> RowResult:
        if work.row.name == fail:
            raise StudyError("it broke")
        done.append(f"{work.row.name} {work.seed}")
        outcomes = ["Baseline", "Promoted"]
        return finish(work.study, places, work.row.name, work.seed, RIGHT, outcomes, best=1)

    monkeypatch.setattr(study_runner, "PROGRAMS", dict.fromkeys(Kind, program))


def go(places: Places, done: list[str], monkeypatch: pytest.MonkeyPatch, fail: str = "") -> int:
    """Run the study and return how many rows failed."""
    pretend(places, done, monkeypatch, fail)
    made = study()
    said: list[str] = []
    data = Data.of({}, places)
    failed = run(made, row_names(made, None), seeds_of(made, None), places, data, said.append)
    assert sum("FAILED: it broke" in line for line in said) == failed
    return failed


def test_what_is_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places, done = Places(tmp_path), list[str]()
    assert go(places, done, monkeypatch, fail="no-cap") == 2
    rows = ["main", "majority", "constant"]
    assert done == [f"{row} {seed}" for seed in (1, 2) for row in rows]
    done.clear()
    assert go(places, done, monkeypatch) == 0
    assert done == ["no-cap 1", "no-cap 2"]
    done.clear()
    assert go(places, done, monkeypatch) == 0
    assert done == []


def test_a_row_may_have_fewer_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**row, "seeds": [2]} if row["name"] == "no-cap" else row for row in DOCUMENT["rows"]]
    made, places, done = study(rows=rows), Places(tmp_path), list[str]()
    pretend(places, done, monkeypatch)
    assert run(made, ["main", "no-cap"], [1, 2], places, Data.of({}, places), print) == 0
    assert done == ["main 1", "main 2", "no-cap 2"]
    assert not any(found.row == "no-cap" for found in collect(made, places).missing)


def test_a_row_that_would_be_refused_stops_all_before_anything_runs(tmp_path: Path) -> None:
    made = study(
        rows=[*DOCUMENT["rows"], {"name": "odd", "kind": "evolution", "why": "?", "set": {"x": 1}}]
    )
    places = Places(tmp_path / "studies")
    with pytest.raises(StudyError, match=r"row odd: spec\.x: unknown field"):
        run(made, ["main", "odd"], [1], places, Data.of({}, places), print)
    assert not places.root.exists()


def test_rows_and_seeds_are_of_the_study() -> None:
    made = study()
    assert row_names(made, "constant, main") == ["constant", "main"]
    assert seeds_of(made, "2") == [2]
    for wrong in ("3", "1,x"):
        with pytest.raises(StudyError, match="--seeds"):
            seeds_of(made, wrong)
    with pytest.raises(StudyError, match="no row `x`"):
        row_names(made, "main,x")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="data volume `made`"):
        Data.of({"made": str(tmp_path / "none")}, Places(tmp_path))
