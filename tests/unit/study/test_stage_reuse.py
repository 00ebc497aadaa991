from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.study.made_up import AFTER, DOCUMENT, MORE, finish, study, write_data

from selfemo_api.stages import Stage, stage_prefix, stages_of
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.row_code import CODE, code_sha256, note_code
from selfemo_study.row_evolution import evolution_of, resumes
from selfemo_study.row_record import begin_row
from selfemo_study.row_task import RowTask
from selfemo_study.stage_reuse import copied_stages, copy_finished_stages, equal_first_stages
from selfemo_study.study_config import Study
from selfemo_study.study_folders import StudyFolders

FIRST = ["0Evaluate", "1SelfPlay", "1Score", "1Flywheel", "1Train", "1Evaluate"]


def changed(**changes: object) -> Study:
    row = {"name": "other", "kind": "evolution", "why": "?", "set": changes}
    return study(rows=[*DOCUMENT["rows"], row])


def task_of(made: Study, row: str, root: Path, seed: int = 1) -> RowTask:
    return RowTask(made, made.row(row), seed, StudyFolders(root), DataVolumes({"made": root}))


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"stopping.maxGenerations": 1}, 6),
        ({"training.optimizer.learningRate": 1e-4}, 4),
        ({"flywheel.replay": 0}, 3),
        ({"reward.smoothing": 0}, 2),
        ({"selfPlay.groupSize": 4}, 1),
        ({"dataset.context": {"past": 2}}, 0),
    ],
)
def test_stages_are_equal_up_to_the_first_that_differs(
    changes: dict[str, object], count: int
) -> None:
    made = changed(**changes)
    one, two = (evolution_of(made, made.row(name), 1).spec for name in ("main", "other"))
    found = [f"{generation}{stage.value}" for generation, stage in equal_first_stages(one, two)]
    assert found == FIRST[:count]


def test_another_seed_shares_nothing() -> None:
    made = study()
    one, two = (evolution_of(made, made.row("main"), seed).spec for seed in (1, 2))
    assert equal_first_stages(one, two) == []


def leave(root: Path, made: Study) -> Path:
    """Write a finished main row with its first stages, of which one is missing."""
    write_data(root)
    one = task_of(made, "main", root)
    begin_row(one, None)
    note_code(one.folder.path)
    finish(
        made, StudyFolders(root), "main", 1, {(0, "dev"): 1, (0, "test"): 1}, ["Baseline"], best=0
    )
    run = one.folders.run(one.study, one.row, one.seed)
    for generation, stage in [
        (0, Stage.EVALUATE),
        *((1, s) for s in stages_of(1) if s is not Stage.SCORE),
    ]:
        folder = run / stage_prefix(generation, stage)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(stage.value)
        (folder / "run.json").write_text(json.dumps({"seconds": 7.0}))
    return run


def test_what_is_equal_and_there_is_taken_over(tmp_path: Path) -> None:
    made = changed(**{"stopping.maxGenerations": 1})
    leave(tmp_path, made)
    other = task_of(made, "other", tmp_path)
    other.folder.path.mkdir(parents=True)
    copy_finished_stages(other)
    run = other.folders.run(other.study, other.row, other.seed)
    found = sorted(p.parent.relative_to(run).as_posix() for p in run.rglob("manifest.json"))
    assert found == [stage_prefix(0, Stage.EVALUATE), stage_prefix(1, Stage.SELF_PLAY)]
    note, seconds = copied_stages(other.folder.path, run)
    assert note == f"; from main: {', '.join(found)}"
    assert seconds == dict.fromkeys(found, 7.0)


def test_a_row_that_ran_with_other_code_gives_nothing(tmp_path: Path) -> None:
    made = changed(**{"stopping.maxGenerations": 1})
    leave(tmp_path, made)
    noted = task_of(made, "main", tmp_path).folder.path / CODE
    assert noted.read_text() == f"{code_sha256()}\n"
    other = task_of(made, "other", tmp_path)
    run = other.folders.run(other.study, other.row, other.seed)
    # an edit before it began, an edit in the middle, and a row of before codes were noted
    for codes in ("0" * 64, f"{'0' * 64}\n{code_sha256()}", ""):
        noted.write_text(codes)
        copy_finished_stages(other)
        assert not run.exists()
    noted.write_text(code_sha256())
    copy_finished_stages(other)
    assert run.exists()


def test_a_row_that_read_other_dialogues_gives_nothing(tmp_path: Path) -> None:
    made = changed(**{"stopping.maxGenerations": 1})
    leave(tmp_path, made)
    other = task_of(made, "other", tmp_path)
    run = other.folders.run(other.study, other.row, other.seed)
    train = tmp_path / "train.jsonl"
    before = train.read_text()
    train.write_text(before.replace("so joy", "so much joy", 1))
    copy_finished_stages(other)
    assert not run.exists()
    train.write_text(before)
    record = task_of(made, "main", tmp_path).folder.record
    noted = record.read_text()
    record.unlink()  # a row of an earlier harness
    copy_finished_stages(other)
    assert not run.exists()
    record.write_text(noted)
    copy_finished_stages(other)
    assert run.exists()


def test_a_run_that_is_there_is_left_alone(tmp_path: Path) -> None:
    made = changed(**{"stopping.maxGenerations": 1})
    leave(tmp_path, made)
    other = task_of(made, "other", tmp_path)
    run = other.folders.run(other.study, other.row, other.seed)
    run.mkdir(parents=True)
    copy_finished_stages(other)
    assert list(run.iterdir()) == []
    assert copied_stages(other.folder.path, run) == ("", {})


def test_a_row_that_is_not_finished_gives_nothing(tmp_path: Path) -> None:
    made = changed(**{"stopping.maxGenerations": 1})
    leave(tmp_path, made)
    task_of(made, "main", tmp_path).folder.result.unlink()
    other = task_of(made, "other", tmp_path)
    copy_finished_stages(other)
    assert not (other.folders.run(other.study, other.row, other.seed)).exists()


def test_a_row_that_begins_with_another_model_takes_nothing_over(tmp_path: Path) -> None:
    made = study(rows=[*DOCUMENT["rows"], AFTER, MORE])
    leave(tmp_path, made)
    after = task_of(made, "after-more", tmp_path)
    assert equal_first_stages(after.spec, task_of(made, "main", tmp_path).spec), (
        "by its settings it could"
    )
    copy_finished_stages(after)
    assert not after.folders.run(after.study, after.row, after.seed).exists()


def test_a_row_that_resumes_takes_nothing_over_from_one_that_does_not(tmp_path: Path) -> None:
    """The model has another URI there, so the product would refuse the stages."""
    made = changed(**{"training.start": "Model"})
    leave(tmp_path, made)
    other = task_of(made, "other", tmp_path)
    assert equal_first_stages(other.spec, task_of(made, "main", tmp_path).spec)
    copy_finished_stages(other)
    assert not other.folders.run(other.study, other.row, other.seed).exists()
    # if the headline row resumes, all rows do
    everywhere = study(rows=made.rows, spec={**made.spec, "training": {"start": "Model"}})
    assert {resumes(everywhere, row, 1) for row in everywhere.rows} == {True}
    assert resumes(made, made.row("other"), 1) and not resumes(made, made.row("main"), 1)
