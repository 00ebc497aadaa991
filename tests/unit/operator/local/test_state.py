"""The state folder keeps what a person wrote and what it stood for, between two runs."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.api.documents import VALID
from tests.unit.operator.planner.simulated_world import START

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import Best
from selfemo_operator.cli.run_options import read_requests
from selfemo_operator.local.state import LocalState, RunnerError, is_active
from selfemo_operator.planner.lifecycle import begin
from selfemo_operator.planner.pinning import pinned_spec


class Runs:
    """One file, and the state folder of its runs."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "evolution.yaml"
        self.state = LocalState(folder / "state")

    def load(self, *changes: str, **spec: Any) -> EmotionEvolution:
        """Return the evolution as `selfemo run` has it after reading the file and the state."""
        self.file.write_text(yaml.safe_dump({**VALID, "spec": {**VALID["spec"], **spec}}))
        (request,) = read_requests([str(self.file)], changes, [], self.state.folder)
        return self.state.load(request.evolution, request.uid)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path)
    yield made
    made.state.close()


def test_a_run_continues_with_the_same_file(runs: Runs) -> None:
    spec = {"overrides": {"training": {"epochs": 3}}, "recipe": "tests-v1"}
    first = runs.load(**spec)
    assert first.written["overrides"] == spec["overrides"]
    started = first.model_copy(update={"status": begin(first, START)})
    runs.state.save(started)
    again = runs.load(**spec)
    assert again == started
    assert again.metadata.generation == 1
    assert pinned_spec(again.status).training.epochs == 3


@pytest.mark.parametrize(
    ("changes", "spec"),
    [
        ((), {"overrides": {"training": {"epochs": 4}}}),
        (("training.epochs=4",), {}),
        ((), {"stopping": {"maxGenerations": 9}}),
        ((), {"recipe": "qwen3-lora-v1", "warmStart": {"steps": 0}}),
    ],
)
def test_an_edit_between_two_runs_counts(
    runs: Runs, changes: tuple[str, ...], spec: dict[str, Any]
) -> None:
    if spec.get("recipe"):
        prior = {"labelPrior": {"joy": 0.5, "anger": 0.5}}
        spec = {**spec, "dataset": {**VALID["spec"]["dataset"], **prior}}
    runs.load()
    edited = runs.load(*changes, **spec)
    runs.state.save(edited)
    assert edited.metadata.generation == 2
    assert runs.load(*changes, **spec).metadata.generation == 2


def test_the_same_values_in_other_words_are_not_an_edit(runs: Runs) -> None:
    runs.load()
    assert runs.load(training={"imitation": 0.0}).metadata.generation == 1


def test_an_immutable_field_is_refused_as_on_the_api_server(runs: Runs) -> None:
    runs.load()
    with pytest.raises(RunnerError, match=r"demo: spec: `seed` is immutable; use another name"):
        runs.load(seed=5)
    with pytest.raises(RunnerError, match=r"`evaluation\.useLabelPrior` is immutable"):
        prior = {**VALID["spec"]["dataset"], "labelPrior": {"joy": 0.5, "anger": 0.5}}
        runs.load(dataset=prior, evaluation={"useLabelPrior": True})


def test_an_edit_of_what_generations_are_compared_on_is_refused_at_the_start(runs: Runs) -> None:
    """Once the baseline is measured, also if the value comes from the recipe."""
    first = runs.load()
    started = first.model_copy(update={"status": begin(first, START)})
    runs.state.save(started)
    assert runs.load(dataset={**VALID["spec"]["dataset"], "context": {"past": 2}})
    best = Best(generation=0, f1=0.5, model_uri="file:///model")
    measured = started.status.model_copy(update={"best": best})
    runs.state.save(first.model_copy(update={"status": measured}))
    with pytest.raises(RunnerError, match=r"`dataset.context` is .* use another name"):
        runs.load(dataset={**VALID["spec"]["dataset"], "context": {"past": 2}})
    with pytest.raises(
        RunnerError, match=r"`overrides.selfPlay.maxTokens.recognizer` is 99 and was 16"
    ):
        runs.load(overrides={"selfPlay": {"maxTokens": {"recognizer": 99}}})
    assert runs.load(stopping={"maxGenerations": 9}).status.best == best


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with pytest.raises(
        RunnerError, match=r"does not support file locks \(flock\).* choose another folder with"
    ):
        LocalState(tmp_path)
    assert not is_active(tmp_path)
