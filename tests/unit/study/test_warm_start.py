"""The models that rows share, and what the supervised trainings get of the study's spec."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.study.made_up import DOCUMENT, LABELS, answers, study, write_data

from selfemo_api.spec import Context, View
from selfemo_study import row_task, supervised_training, worker_rows
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.measurements import Measurement
from selfemo_study.row_task import RowTask, default_views
from selfemo_study.study_config import Study, StudyError
from selfemo_study.study_folders import StudyFolders
from selfemo_study.worker_rows import trained_checkpoints

ROUNDS = {**DOCUMENT["warmStart"], "rounds": 2}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of all trainings, whose models are small files."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    lines: list[list[str]] = []

    def run_selfemo(arguments: Sequence[str], *, log: Path) -> tuple[int, str]:
        lines.append([*arguments])
        folder = Path(arguments[arguments.index("--to") + 1])
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"number": len(lines)}))
        return 0, ""

    def evaluate_model(*_: object) -> Measurement:
        return answers(1)

    monkeypatch.setattr(supervised_training, "run_selfemo", run_selfemo)
    monkeypatch.setattr(row_task, "evaluate_model", evaluate_model)
    monkeypatch.setattr(row_task, "prepare_base_model", lambda *_: base)
    write_data(tmp_path)
    return lines


def task_of(made: Study, root: Path, row: str = "main") -> RowTask:
    return RowTask(made, made.row(row), 1, StudyFolders(root), DataVolumes({"made": root}))


@pytest.mark.parametrize(("warm_start", "trainings"), [(DOCUMENT["warmStart"], 1), (ROUNDS, 2)])
def test_generation_0_is_made_once_and_refused_with_other_settings(
    tmp_path: Path, trained: list[list[str]], warm_start: dict[str, Any], trainings: int
) -> None:
    rows = [*DOCUMENT["rows"][:2], {**DOCUMENT["rows"][1], "name": "views"}]
    rows[2]["set"] = {"dataset.context.past": 3}
    made = study(warmStart=warm_start, rows=rows)
    model = task_of(made, tmp_path).baseline_model()
    for row in ("main", "no-cap", "views"):  # what a row changes is not that of generation 0
        assert task_of(made, tmp_path, row).baseline_model() == model
    assert len(trained) == trainings
    for other, name in (
        ({"warmStart": {**warm_start, "steps": 7}}, "steps"),
        ({"warmStart": {**warm_start, "share": 0.3}}, "dialogues"),
        ({"spec": {**DOCUMENT["spec"], "model": {"prompts": "chat-v1"}}}, "prompts"),
    ):
        with pytest.raises(StudyError, match=rf"seed-1 was made with .*{name}.*: delete"):
            task_of(study(**{"warmStart": warm_start, **other}), tmp_path).baseline_model()
    (tmp_path / "base" / "config.json").write_text('{"layers": 2}')
    with pytest.raises(StudyError, match=r"with other settings \(modelSha256\)"):
        task_of(made, tmp_path).baseline_model()
    (tmp_path / "base" / "config.json").write_text("{}")
    train = tmp_path / "train.jsonl"
    train.write_text(train.read_text().replace("so joy", "joy", 1))
    with pytest.raises(StudyError, match=r"with other settings \(source\)"):
        task_of(made, tmp_path).baseline_model()
    assert len(trained) == trainings


def test_the_best_round_follows_from_dev_and_from_the_number_of_rounds(
    tmp_path: Path, trained: list[list[str]]
) -> None:
    made = study(warmStart=ROUNDS)
    model = task_of(made, tmp_path).baseline_model()
    assert [path.name for path in sorted(model.parent.glob("*.json"))] == [
        "seed-1-round-1.json", "seed-1-round-2.json", "seed-1-rounds.json", "seed-1.json"
    ]  # fmt: skip
    with pytest.raises(StudyError, match=r"\(rounds\)"):
        task_of(study(warmStart={**ROUNDS, "rounds": 3}), tmp_path).baseline_model()
    with pytest.raises(StudyError, match=r"\(dev, rounds\)"):
        task_of(study(), tmp_path).baseline_model()
    dev = tmp_path / "dev.jsonl"
    dev.write_text(dev.read_text().replace("so joy", "joy", 1))
    with pytest.raises(StudyError, match=r"\(dev\)"):
        task_of(made, tmp_path).baseline_model()
    shutil.rmtree(model)
    assert task_of(made, tmp_path).baseline_model() == model
    assert len(trained) == 2, "the rounds are used again"


@pytest.mark.parametrize("record", [None, '{"seconds": 1.0, "wanted": {}}'])
def test_a_model_without_a_record_is_refused(
    tmp_path: Path, trained: list[list[str]], record: str | None
) -> None:
    model = task_of(study(), tmp_path).baseline_model()
    file = model.with_name("seed-1.json")
    file.unlink() if record is None else file.write_text(record)
    with pytest.raises(StudyError, match="seed-1 has no record of what it was made from: delete"):
        task_of(study(), tmp_path).baseline_model()
    shutil.rmtree(model)
    task_of(study(), tmp_path).baseline_model()
    assert len(trained) == 2


def test_a_training_gets_the_columns_the_map_of_labels_and_later_turns(
    tmp_path: Path, trained: list[list[str]]
) -> None:
    lines = [f"d{n},{n % 2},A,so {word},{word}" for n, word in enumerate(["happy", "anger"] * 3)]
    (tmp_path / "train.csv").write_text("\n".join(["dialogue,turn,speaker,said,feels", *lines]))
    source = {**DOCUMENT["warmStart"]["source"], "uri": "data://made/train.csv", "format": "CSV"}
    dataset = {
        **DOCUMENT["spec"]["dataset"],
        "columns": {"text": "said", "label": "feels"},
        "labelMap": {"happy": "joy"},
        "context": {"past": 2, "future": 1},
    }
    made = study(
        spec={**DOCUMENT["spec"], "dataset": dataset}, warmStart={"source": source, "share": 0.5}
    )
    task = task_of(made, tmp_path)
    # as TF-IDF reads them
    read = [(d.turns[0].text, d.turns[0].labels) for d in task.training_dialogues]
    assert read == [("so happy", ("joy",)), ("so anger", ("anger",))] * 3
    task.baseline_model()
    (line,) = trained
    options = dict(zip(line[2::2], line[3::2], strict=True))
    assert (options["--format"], options["--past"], options["--view"]) == ("JSONL", "2", "2,1")
    assert options["--labels"] == ",".join(LABELS)
    written = [json.loads(text) for text in Path(options["--source"]).read_text().splitlines()]
    assert [one["turns"][0]["labels"] for one in written] == [["joy"], ["anger"]] * 3


def test_the_view_of_a_training_is_that_of_the_evolution() -> None:
    assert default_views(Context(past=2, future=1)) == [View(past=2, future=1)]
    assert default_views(Context(past=2)) == []  # the command's own default


def test_a_training_of_another_configuration_starts_from_scratch(
    tmp_path: Path, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def run_module(module: str, config: Path, **_: object) -> None:
        ran.append(module)
        point = {"step": 1, "examples": 1, "seconds": float(len(ran))}
        (config.parent / "points.json").write_text(json.dumps([point]))

    monkeypatch.setattr(worker_rows, "run_module", run_module)
    made = study(rows=[*DOCUMENT["rows"], {"name": "free", "kind": "adamatch", "why": "?"}])
    task, base = task_of(made, tmp_path, "free"), tmp_path / "base"
    task.folder.path.mkdir(parents=True)
    assert [c.seconds for c in trained_checkpoints(task, base, 4)] == [1.0]
    assert [c.seconds for c in trained_checkpoints(task, base, 4)] == [1.0]
    assert [c.seconds for c in trained_checkpoints(task, base, 6)] == [2.0]
    (base / "config.json").write_text('{"trained": "again"}')
    assert [c.seconds for c in trained_checkpoints(task, base, 6)] == [3.0]
