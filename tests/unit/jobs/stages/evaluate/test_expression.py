"""Expression is measured by the stage: with real models, and a real store."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from selfemo_api.contract import ENV_WORK, Earlier, StageConfig
from selfemo_api.dataset_labels import MELD
from selfemo_api.results import ExpressionScore, StageResult
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.evaluation.expression_tables import (
    READINGS,
    RESPONSES,
    readings_path,
    responses_path,
)
from selfemo_jobs.runtime.manifest import read_manifest, read_part
from selfemo_jobs.runtime.tables import decode_table
from selfemo_jobs.stages.evaluate import expression
from selfemo_jobs.stages.evaluate.expression_readings import response_targets
from selfemo_jobs.stages.evaluate.stage import PROGRAM
from selfemo_jobs.store import open_store

CONTEXTS = 2
Make = Callable[..., StageConfig]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with other weights, which is the policy of generation 1."""
    folder = tmp_path_factory.mktemp("other")
    make_tiny(folder, seed=1)
    return folder


@pytest.fixture
def make(
    tmp_path: Path,
    tiny_model: Path,
    other_model: Path,
    make_spec: Callable[..., EvolutionSpec],
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    """Configuration of an evaluation of generation 0, or of one that is compared with it."""
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.setattr(expression, "number_of_contexts", lambda *_: CONTEXTS)
    dev = tmp_path / "dev.jsonl"
    lines = [
        {
            "id": f"d{d}",
            "turns": [
                {"speaker": "AB"[i % 2], "text": f"line {i} of {d}", "labels": [MELD[(d + i) % 7]]}
                for i in range(4)
            ],
        }
        for d in range(5)
    ]
    dev.write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"uri": dev.as_uri()}

    def build(generation: int = 0, store: str = "store", **self_play: Any) -> StageConfig:
        spec = make_spec(
            model={"uri": tiny_model.as_uri()},
            storage={"uri": f"file://{tmp_path}/{store}"},
            selfPlay=self_play,
            dataset={
                "sources": [
                    {"name": "train", "use": "SelfPlay", **source},
                    {"name": "dev", "use": "Evaluation", **source},
                ]
            },
            evaluation={"bootstrap": 30, "batchSize": 8},
        )
        config = make_config(Stage.EVALUATE, generation=generation, spec=spec)
        if generation == 0:
            return config
        folder = config.output.replace("/001/", "/{:03d}/").replace("/002/", "/{:03d}/")
        earlier = {Earlier.BASELINE: 0} | ({Earlier.BEST: 1} if generation == 2 else {})
        return config.model_copy(
            update={
                "policy_uri": other_model.as_uri(),
                "baseline_uri": tiny_model.as_uri(),
                "earlier_evaluations": {
                    name: f"{folder.format(number)}/manifest.json"
                    for name, number in earlier.items()
                },
            }
        )

    return build


def run(config: StageConfig) -> StageResult:
    result = PROGRAM.run(config)
    assert isinstance(result, StageResult)
    return result


def measured(config: StageConfig) -> ExpressionScore:
    score = run(config).expression
    assert score is not None
    return score


def table_of(config: StageConfig, path: str, schema: pa.Schema) -> pa.Table:
    store, uri = open_store(config.spec.storage), f"{config.output}/manifest.json"
    manifest, _ = read_manifest(store, uri)
    part = manifest.find_part(path)
    assert part is not None
    return decode_table(read_part(store, uri, part), uri, schema)


def manifest_bytes(config: StageConfig) -> bytes:
    return open_store(config.spec.storage).get(f"{config.output}/manifest.json")


def test_each_context_is_answered_for_each_emotion_and_read(make: Make) -> None:
    config = make()
    score = measured(config)
    assert (score.source, score.responses, score.dialogues) == ("dev", CONTEXTS * 7, CONTEXTS)
    assert score.human_turns == CONTEXTS * 7
    assert score.human is not None
    assert score.as_intended_low is not None
    assert score.over_baseline is None, "generation 0 has no earlier one"
    responses = table_of(config, responses_path("dev"), RESPONSES)
    assert responses["intended"].to_pylist() == list(MELD) * CONTEXTS
    assert len(set(responses["dialogue_id"].to_pylist())) == CONTEXTS
    readings = table_of(config, readings_path("dev"), READINGS)
    assert readings["human"].to_pylist() == [False] * (CONTEXTS * 7) + [True] * (CONTEXTS * 7)
    for one, response in zip(readings.to_pylist(), responses.to_pylist(), strict=False):
        assert one["intended"] == response["intended"]
        if response["response"]:
            assert sum(one["probabilities"]) == pytest.approx(1.0, abs=1e-5)
            assert one["read"] == MELD[max(range(7), key=lambda i: one["probabilities"][i])]
        else:
            assert one["read"] is None
        assert one["as_intended"] == (one["read"] == one["intended"])
    right = sum(one["as_intended"] for one in readings.to_pylist()[: CONTEXTS * 7])
    assert score.as_intended == pytest.approx(right / (CONTEXTS * 7), abs=1e-6)


def test_two_runs_are_equal(make: Make) -> None:
    first, second = make(store="one"), make(store="two")
    run(first)
    run(second)
    assert manifest_bytes(first) == manifest_bytes(second)


def test_a_later_generation_is_paired_with_the_baseline_and_the_best(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline = measured(make())
    read: list[int] = []
    read_targets = expression.read_targets

    def counted(engine: Any, spec: Any, targets: Any) -> Any:
        read.append(len(targets))
        return read_targets(engine, spec, targets)

    monkeypatch.setattr(expression, "read_targets", counted)
    first = measured(make(1))
    assert read == [CONTEXTS * 7], "the baseline has read the human turns already"
    assert first.human == baseline.human
    assert first.over_baseline is not None
    assert first.over_baseline.generation == 0
    change = first.as_intended - baseline.as_intended
    assert first.over_baseline.change == pytest.approx(change, abs=2e-6)
    assert first.over_baseline.low is not None
    assert first.over_best is None
    second = measured(make(2))
    assert second.over_best is not None
    assert (second.over_best.generation, second.over_best.change) == (1, 0.0), "the same model"


def test_the_judge_is_the_baseline_and_not_the_policy(
    make: Make, tiny_model: Path, other_model: Path
) -> None:
    run(make())
    config = make(1)
    run(config)
    spec = config.spec
    source = spec.dataset.evaluation[0]
    path = Path(source.uri.removeprefix("file://"))
    dialogues = load_source(source, spec.dataset.labels, path, read_labels=True)
    responses = table_of(config, responses_path("dev"), RESPONSES)
    targets = response_targets(responses, dialogues, spec.dataset.context.past)
    stored = table_of(config, readings_path("dev"), READINGS)["probabilities"].to_pylist()
    for folder, is_judge in ((tiny_model, True), (other_model, False)):
        arguments = TransformersArgs(batch_size=8)
        engine = TransformersEngine(folder, arguments, max_model_len=2048)
        read = [list(one.values()) for one in expression.read_targets(engine, spec, targets)]
        same = [
            one == pytest.approx(other, abs=1e-5) for one, other in zip(read, stored, strict=False)
        ]
        assert all(same) == is_judge


def test_an_interrupted_attempt_keeps_its_responses(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(store="whole")
    run(whole)
    config = make()
    respond, calls = expression.respond, list[int]()

    def counted(*arguments: Any) -> Any:
        calls.append(0)
        return respond(*arguments)

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(expression, "respond", counted)
    with monkeypatch.context() as patch:
        patch.setattr(expression, "read_targets", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    run(config)
    assert len(calls) == 1
    assert manifest_bytes(config) == manifest_bytes(whole)


@pytest.mark.parametrize("damage", ["missing", "damaged", "other settings"])
def test_without_the_earlier_readings_there_is_no_change_but_a_result(
    make: Make, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = make()
    run(config)
    folder = Path(config.output.removeprefix("file://"))
    later = make(1, temperature=0.5) if damage == "other settings" else make(1)
    if damage == "missing":
        (folder / "manifest.json").unlink()
    elif damage == "damaged":
        for part in folder.glob("expression/dev/readings-*.parquet"):
            part.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        score = measured(later)
    assert score.over_baseline is None
    assert score.human is not None, "the human turns are read again"
    assert "expression is not compared" in caplog.text


def test_without_the_responder_there_is_nothing_to_measure(make: Make) -> None:
    result = run(make(roles=["Recognizer"]))
    assert result.expression is None
    manifest, _ = read_manifest(open_store(make().spec.storage), result.manifest)
    assert not [part.path for part in manifest.parts if part.path.startswith("expression/")]
    assert "expression" not in manifest.report
