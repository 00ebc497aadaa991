from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.unit.study.made_up import DOCUMENT, MORE, answers, finish, study

from selfemo_study.equal_compute import best_so_far_curve, compare_at_equal_compute, time_curves
from selfemo_study.finished_rows import MissingRow, read_rows
from selfemo_study.measurements import write_predictions
from selfemo_study.results_writer import write_results
from selfemo_study.row_result import CurvePoint
from selfemo_study.study_config import Study
from selfemo_study.study_folders import StudyFolders

RIGHT = {(0, "dev"): 1, (1, "dev"): 2, (2, "dev"): 1, (0, "test"): 1, (1, "test"): 2}
VOTES = {(0, "dev"): 1, (1, "dev"): 1, (0, "test"): 1, (1, "test"): 1}
OUTCOMES = ["Baseline", "Promoted", "RolledBack"]


@pytest.fixture
def folders(tmp_path: Path) -> StudyFolders:
    """Both seeds of the main row, one of `no-cap`, and one of the votes."""
    found, made = StudyFolders(tmp_path / "studies"), study()
    for seed in (1, 2):
        finish(made, found, "main", seed, RIGHT, OUTCOMES, best=1)
    worse = {**RIGHT, (1, "test"): 0}
    finish(made, found, "no-cap", 1, worse, OUTCOMES, best=1)
    finish(made, found, "majority", 1, VOTES, ["Baseline", "Control"], best=1, steps=8)
    return found


def written(
    folders: StudyFolders, to: Path, made: Study | None = None
) -> tuple[dict[str, object], str]:
    page = write_results(made or study(), folders, to, to)
    return json.loads((to / "made-up.json").read_text()), page.read_text()


def test_the_answer_is_there(folders: StudyFolders, tmp_path: Path) -> None:
    summary, page = written(folders, tmp_path)
    before, after = answers(1).f1, answers(2).f1
    assert summary["relative_gain"] == pytest.approx(after / before - 1, abs=1e-6)
    low, high = summary["relative_gain_interval"]  # type: ignore[misc]
    assert low <= summary["relative_gain"] <= high  # type: ignore[operator]
    assert summary["majority_vote_relative_gain"] == 0.0
    assert summary["machine"]["cores"] >= 1  # type: ignore[index]
    assert "selfemo" in summary["machine"]["versions"]  # type: ignore[index]
    assert f"Relative gain on test: {100 * (after / before - 1):+.1f}%" in page


def test_the_answer_names_what_the_labeled_share_alone_is_worth(
    folders: StudyFolders, tmp_path: Path
) -> None:
    made = study(rows=[*DOCUMENT["rows"], MORE])
    finish(made, folders, "more", 1, RIGHT, ["Baseline", "Control"], best=1, steps=8)
    summary, page = written(folders, tmp_path, made)
    assert summary["supervised_relative_gain"] == summary["relative_gain"]
    gain = f"{100 * summary['relative_gain']:+.1f}%"  # type: ignore[operator]
    assert f"The same number of steps on the labeled subset alone: {gain} [" in page


def test_the_answer_stands_beside_that_without_the_responder_and_over_the_control(
    folders: StudyFolders, tmp_path: Path
) -> None:
    made = study(rows=[*DOCUMENT["rows"], MORE], withoutResponder="no-cap")
    summary, page = written(folders, tmp_path, made)
    assert summary["gain_over_supervised"] is None
    assert summary["gain_over_supervised_interval"] is None
    assert summary["without_responder_relative_gain"] == -1.0  # of the one seed that is finished
    assert "Without the responder: -100.0%" in page
    best = {**RIGHT, (1, "test"): 3}
    finish(made, folders, "more", 1, best, ["Baseline", "Control"], best=1, steps=8)
    summary, page = written(folders, tmp_path, made)
    gain = answers(2).f1 / answers(3).f1 - 1  # seed 2 of the control did not run
    assert summary["gain_over_supervised"] == pytest.approx(gain, abs=1e-6)
    low, high = summary["gain_over_supervised_interval"]  # type: ignore[misc]
    assert low <= gain <= high < 0
    assert f"`main` compared with these steps: {100 * gain:+.1f}% [" in page


def test_a_control_that_has_not_raised_dev_is_generation_0(
    folders: StudyFolders, tmp_path: Path
) -> None:
    made = study(rows=[*DOCUMENT["rows"], MORE])
    worse = {**RIGHT, (1, "dev"): 0, (1, "test"): 0}
    finish(made, folders, "more", 1, worse, ["Baseline", "Control"], best=1, steps=8)
    summary, page = written(folders, tmp_path, made)
    assert summary["supervised_relative_gain"] == 0.0
    assert summary["gain_over_supervised"] == summary["relative_gain"]
    assert f"| more | 1 | 0 * | Baseline | {answers(1).f1:.4f} |" in page
    assert f"| more | 1 | 1 | Control | {answers(0).f1:.4f} |" in page  # what was trained


def test_what_did_not_run_is_missing(folders: StudyFolders, tmp_path: Path) -> None:
    summary, page = written(folders, tmp_path)
    assert summary["complete"] is False
    assert summary["missing"] == [
        {"row": row, "seed": seed, "why": "not finished"}
        for row, seed in (("no-cap", 2), ("majority", 2), ("constant", 1), ("constant", 2))
    ]
    rows = {row["name"]: row for row in summary["rows"]}  # type: ignore[attr-defined]
    assert rows["constant"]["test"] is None
    assert rows["constant"]["relativeGain"] is None
    assert rows["no-cap"]["missing"] == [2]
    assert "| constant | floor | none | missing | missing | missing | missing |" in page
    assert "- constant, seed 1, 2: not finished" in page


def test_an_empty_folder_has_no_answer(tmp_path: Path) -> None:
    summary, page = written(StudyFolders(tmp_path / "studies"), tmp_path)
    assert summary["relative_gain"] is None
    assert summary["complete"] is False
    assert "there is no result yet" in page
    assert not list(tmp_path.glob("*.svg"))


def test_a_promotion_that_is_worse_on_test_is_named(folders: StudyFolders, tmp_path: Path) -> None:
    summary, page = written(folders, tmp_path)
    assert summary["promoted_and_worse"] == ["no-cap, seed 1: generation 1 after 0"]
    assert "no-cap, seed 1: generation 1 after 0" in page


def test_how_near_a_collapse_each_evolution_came_is_on_the_page(
    folders: StudyFolders, tmp_path: Path
) -> None:
    summary, page = written(folders, tmp_path)
    rows = {row["name"]: row for row in summary["rows"]}  # type: ignore[attr-defined]
    signs = rows["main"]["signs"]
    assert [(s["seed"], s["generation"]) for s in signs] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert rows["majority"]["signs"] == []  # a control cannot collapse
    least, away = min(s["entropy"] for s in signs), max(s["divergence"] for s in signs)
    assert f"| main | 4 | {least:.3f} | {away:.3f} |" in page
    assert "`Collapsed` if entropy is below 0.35 or divergence is above 0.3 (the defaults)" in page


def test_the_table_has_every_generation_and_split(folders: StudyFolders, tmp_path: Path) -> None:
    written(folders, tmp_path)
    rows = pq.read_table(tmp_path / "made-up.parquet").to_pylist()
    assert len(rows) == 2 * (3 * 3 + 2)
    best = [r for r in rows if r["row"] == "main" and r["seed"] == 1 and r["best"]]
    assert [(r["generation"], r["split"]) for r in best] == [(1, "dev"), (1, "test")]
    assert best[1]["f1"] == pytest.approx(answers(2).f1)
    assert (best[1]["seconds_train"], best[1]["seconds_score"]) == (10.0, None)
    assert (best[1]["steps"], best[1]["kept_groups"]) == (4, 7)
    rolled = next(r for r in rows if r["generation"] == 2 and r["split"] == "test")
    assert (rolled["f1"], rolled["outcome"]) == (None, "RolledBack")


def test_a_row_of_other_settings_does_not_count(folders: StudyFolders) -> None:
    changed = study(spec={**DOCUMENT["spec"], "selfPlay": {"groupSize": 4}})
    found = read_rows(changed, folders)
    assert found.finished == {}
    assert MissingRow("main", 1, "run with other settings than those of the file") in found.missing


def test_a_control_of_an_earlier_run_does_not_count(folders: StudyFolders) -> None:
    made = study()
    assert 1 in read_rows(made, folders).finished_seeds(made.row("majority"))
    finish(made, folders, "main", 1, RIGHT, OUTCOMES, best=1, steps=9)
    found = read_rows(made, folders)
    assert found.finished_seeds(made.row("majority")) == {}
    assert (
        MissingRow("majority", 1, "a row that it follows from was run again since") in found.missing
    )


def test_rows_are_compared_over_the_seeds_that_both_have(
    folders: StudyFolders, tmp_path: Path
) -> None:
    summary, _ = written(folders, tmp_path)
    rows = {row["name"]: row for row in summary["rows"]}  # type: ignore[attr-defined]
    wanted = answers(0).f1 - answers(2).f1
    assert rows["no-cap"]["difference"]["value"] == pytest.approx(wanted, abs=1e-6)
    assert rows["main"]["difference"] is None


def test_the_charts_are_on_the_page_and_always_the_same(
    folders: StudyFolders, tmp_path: Path
) -> None:
    _, page = written(folders, tmp_path)
    first = {p.name: p.read_bytes() for p in tmp_path.glob("*.svg")}
    assert set(first) == {f"made-up-{n}.svg" for n in ("generations", "gains", "costs")}
    assert all(f"]({name})" in page for name in first)
    written(folders, tmp_path)
    assert first == {p.name: p.read_bytes() for p in tmp_path.glob("*.svg")}


@pytest.mark.parametrize("last", [1, 3])  # worse, or better by less than `minDelta`
def test_a_generation_that_is_rolled_back_costs_its_time(tmp_path: Path, last: int) -> None:
    right = {**RIGHT, (2, "dev"): last}
    made = finish(study(), StudyFolders(tmp_path), "main", 1, right, OUTCOMES, best=1)
    curve = best_so_far_curve(made)
    assert [(p.seconds, p.steps) for p in curve] == [(0.0, 0), (10.0, 4), (20.0, 8)]
    assert [p.dev for p in curve] == [answers(1).f1, answers(2).f1, answers(2).f1]


ON_POLICY = {"name": "on-policy", "kind": "on-policy", "why": "TRL", "steps": 4}


@pytest.mark.parametrize(
    ("f1s", "then", "reached"),
    [([0.1, 0.3], 2, 0.0), ([0.5, 0.4], 2, 10.0), ([0.5, 0.9], 2, None)],
)
def test_on_policy_training_is_compared_at_equal_seconds(
    folders: StudyFolders, tmp_path: Path, f1s: list[float], then: int, reached: float | None
) -> None:
    others = [{**ON_POLICY, "name": name} for name in ("slow", "slower")]
    made = study(rows=[*DOCUMENT["rows"], ON_POLICY, *others])
    curve = [
        CurvePoint(seconds=8.0 * i, steps=2 * i, dev=f1)
        for i, f1 in enumerate([answers(1).f1, *f1s])
    ]
    finish(made, folders, "on-policy", 1, VOTES, ["Baseline", "Control"], best=1, curve=curve)
    curves = time_curves(read_rows(made, folders))
    (found,) = compare_at_equal_compute(curves, made.headline)  # the others were not run
    assert (found.row, found.seed, found.seconds) == ("on-policy", 1, 16.0)
    assert (found.on_policy, found.headline) == (max(f1s), answers(then).f1)
    assert found.headline_seconds == reached
    summary, page = written(folders, tmp_path, made)
    assert summary["equalCompute"][0]["onPolicy"] == max(f1s)  # type: ignore[index]
    assert "## With equal compute" in page
    assert ("`main` never reaches the best of on-policy training" in page) == (reached is None)
    for row in ("slow", "slower"):
        finish(made, folders, row, 1, VOTES, ["Baseline", "Control"], best=1, curve=curve)
    written(folders, tmp_path, made)
    drawn = (tmp_path / "made-up-time.svg").read_text()
    assert all(f">{name}<" in drawn for name in ("main", "on-policy", "slow", "slower"))


def test_answers_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    found = {(0, "dev"): answers(1), (0, "test"): answers(2), (3, "dev"): answers(3)}
    write_predictions(path, found)
    back = pq.read_table(path)
    keys = list(zip(back["generation"].to_pylist(), back["split"].to_pylist(), strict=True))
    assert set(keys) == set(found)
    for key, measured in found.items():
        mine = back.filter([one == key for one in keys]).select(measured.table.column_names)
        assert mine.equals(measured.table)
