"""A run by the Python API: the same planner, stages and files as of `selfemo run`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.python_api.conftest import DEMO, YAML, SmallRun

import selfemo
from selfemo import Evolution
from selfemo_api.stages import Stage
from selfemo_api.status import EvolutionStatus, Phase
from selfemo_operator.local.state import LocalState

#: The run of a fixture may take long on a busy machine.
#: A whole run, which takes over a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_run_ends_with_its_last_status(small_run: SmallRun) -> None:
    status = small_run.status
    assert status.phase is Phase.SUCCEEDED
    assert [record.generation for record in status.history] == [0, 1]
    assert small_run.evolution.status == status
    assert small_run.evolution.spec.seed == 5
    assert repr(small_run.evolution) == "<Evolution small: Succeeded>"


def test_snapshots_come_in_order_and_end_with_the_run(small_run: SmallRun) -> None:
    for snapshots in (small_run.changes, small_run.watched):
        seen = [(s.generation, s.stage) for s in snapshots if s.stage is not None]
        assert (1, Stage.TRAIN) in seen
        assert seen == sorted(seen, key=seen.index)
        assert snapshots[-1].status.finished
        assert not snapshots[-1].active
    steps = [s for s in small_run.changes if s.stage is Stage.TRAIN and s.done]
    assert steps[-1].done == steps[-1].total
    assert "loss" in steps[-1].metrics
    assert steps[-1].active
    assert small_run.watched[0].status == EvolutionStatus()


def test_a_finished_run_is_not_repeated(small_run: SmallRun) -> None:
    jobs = sorted(small_run.evolution.state_folder.glob("jobs/*"))
    assert small_run.evolution.run() == small_run.status
    assert sorted(small_run.evolution.state_folder.glob("jobs/*")) == jobs


def test_the_best_model_has_its_labels(small_run: SmallRun) -> None:
    best = small_run.evolution.best
    assert best is not None
    assert best.labels == list(small_run.evolution.spec.dataset.labels)
    assert (best.folder / "config.json").is_file()
    trained = small_run.evolution.model(1)
    assert trained.description.origin is not None
    assert trained.description.origin.generation == 1
    assert repr(trained).endswith(", generation=1)")


def test_the_report_is_written(small_run: SmallRun, tmp_path: Path) -> None:
    page = small_run.evolution.report(tmp_path / "page.html")
    assert page == tmp_path / "page.html"
    assert "<title>" in page.read_text()


def test_one_process_runs_an_evolution(small_run: SmallRun) -> None:
    state = LocalState(small_run.evolution.state_folder)
    try:
        with pytest.raises(selfemo.Unavailable, match="is in use: another"):
            small_run.evolution.run()
    finally:
        state.close()


def test_a_run_without_success_raises_its_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(YAML)
    (tmp_path / "empty").mkdir()
    evolution = Evolution.from_file(
        tmp_path / "bad.yaml",
        set={"storage.uri": (tmp_path / "storage").as_uri()},
        data={"model": tmp_path / "empty", "demo": DEMO},
        state=tmp_path / "state",
    )
    with pytest.raises(selfemo.RunFailed, match=r"model\.uri") as failure:
        evolution.run()
    assert failure.value.status.phase is Phase.FAILED
    assert evolution.status == failure.value.status


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    with pytest.raises(selfemo.BadInput, match=r"bad\.yaml: cannot be read"):
        Evolution.from_file(file)
    file.write_text(YAML)
    with pytest.raises(selfemo.BadInput, match="did you mean `engine`"):
        Evolution.from_file(file, set={"selfPlay.engin": "VLLM"})
    with pytest.raises(selfemo.BadInput, match=r"data\['demo'\]: /nowhere is not a folder"):
        Evolution.from_file(file, data={"demo": "/nowhere"})
    colon = tmp_path / "a:b"
    colon.mkdir()
    with pytest.raises(selfemo.BadInput, match=r"data\['demo'\]: .*a:b has a colon"):
        Evolution.from_file(file, data={"demo": colon})


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(YAML)
    evolution = Evolution.from_file(file, state=tmp_path / "state")
    evolution.state_folder.mkdir(parents=True)
    (evolution.state_folder / "evolution.json").write_text("{}")
    with pytest.raises(selfemo.BadInput, match="is damaged"):
        _ = evolution.status
