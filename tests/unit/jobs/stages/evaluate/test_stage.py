"""The stage as a whole, with a real model and a real store."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, ExitCode, StageConfig
from selfemo_api.results import StageResult, decode_message
from selfemo_api.spec import Engine, EvolutionSpec, MaxTokens
from selfemo_api.stages import Stage
from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.datasets.json_lines import to_json_lines
from selfemo_jobs.datasets.load import load_source
from selfemo_jobs.errors import BadInput
from selfemo_jobs.evaluation.prediction_table import PREDICTIONS, dialogues_path
from selfemo_jobs.inference.evaluate_model import evaluate_model
from selfemo_jobs.models.model_description import evaluation_arguments
from selfemo_jobs.runtime.manifest import read_manifest, read_part
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.evaluate import stage
from selfemo_jobs.stages.evaluate.stage import PROGRAM
from selfemo_jobs.store import open_store

Make = Callable[..., StageConfig]


def write_source(path: Path, emotions: list[str | None], turns: int = 4) -> None:
    lines = []
    for d in range(0, len(emotions), turns):
        said: list[dict[str, Any]] = []
        for i, emotion in enumerate(emotions[d : d + turns]):
            turn: dict[str, Any] = {"speaker": "AB"[i % 2], "text": f"line {d + i} is " + "so " * i}
            said.append(turn | ({"labels": [emotion]} if emotion else {}))
        lines.append(json.dumps({"id": f"d{d}", "turns": said}))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    path = tmp_path / "dev.jsonl"
    write_source(path, ["joy", None, "fear", "neutral", "anger", "joy", "neutral", "neutral"] * 3)
    return path


@pytest.fixture
def make(
    tmp_path: Path,
    tiny_model: Path,
    dev: Path,
    make_spec: Callable[..., EvolutionSpec],
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    """Configuration of an evaluation of the tiny model on two sources."""
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(tmp_path / "log"))
    test = tmp_path / "test.jsonl"
    write_source(test, ["sadness", "joy", "neutral"])

    def build(
        store: str = "store", prior: dict[str, float] | None = None, **evaluation: Any
    ) -> StageConfig:
        spec = make_spec(
            model={"uri": f"file://{tiny_model}"},
            storage={"uri": f"file://{tmp_path}/{store}"},
            selfPlay={"roles": ["Recognizer"]},  # test_expression.py has the responder
            dataset={
                "sources": [
                    {"name": "train", "uri": f"file://{dev}", "use": "SelfPlay"},
                    {"name": "dev", "uri": f"file://{dev}", "use": "Evaluation"},
                    {"name": "test", "uri": f"file://{test}", "use": "Evaluation"},
                ],
                **({"labelPrior": prior} if prior else {}),
            },
            evaluation={
                "bootstrap": 50,
                "batchSize": 4,
                "useLabelPrior": prior is not None,
                **evaluation,
            },
        )
        return make_config(Stage.EVALUATE, generation=0, spec=spec)

    return build


def run(config: StageConfig) -> StageResult:
    result = PROGRAM.run(config)
    assert isinstance(result, StageResult)
    return result


def stored_bytes(config: StageConfig) -> bytes:
    return open_store(config.spec.storage).get(f"{config.output}/manifest.json")


def test_whole(make: Make) -> None:
    config = make()
    result = run(config)
    assert not result.reused
    assert result.rows == 21 + 3
    assert [s.source for s in result.scores] == ["dev", "test"]
    dev = result.scores[0]
    assert result.metrics["weightedF1"] == dev.weighted_f1
    assert dev.utterances == 21
    assert dev.weighted_f1_low is not None
    assert dev.weighted_f1_high is not None
    assert dev.weighted_f1_low <= dev.weighted_f1 <= dev.weighted_f1_high
    store = open_store(config.spec.storage)
    manifest, _ = read_manifest(store, result.manifest)
    report = manifest.report["sources"]["dev"]
    assert report["labels"] == config.spec.dataset.labels
    assert report["support"] == [9, 0, 3, 0, 6, 0, 3]
    assert [sum(row) for row in report["confusion"]] == report["support"]
    right = sum(report["confusion"][i][i] for i in range(7))
    assert dev.accuracy == pytest.approx(right / 21, abs=1e-6)
    tables = list(read_tables(store, result.manifest, manifest, PREDICTIONS))
    assert [t.num_rows for t in tables] == [21, 3]
    assert tables[0]["dialogue_id"].to_pylist()[:4] == ["d0", "d0", "d0", "d4"]
    assert tables[0]["utterance"].to_pylist()[:4] == [0, 2, 3, 0]
    assert run(config).reused


def test_the_evaluated_dialogues_are_stored_with_the_predictions(make: Make, dev: Path) -> None:
    config = make()
    result = run(config)
    store = open_store(config.spec.storage)
    manifest, _ = read_manifest(store, result.manifest)
    part = manifest.find_part(dialogues_path("dev"))
    assert part is not None
    data = read_part(store, result.manifest, part)
    assert gzip.decompress(data) == to_json_lines(
        load_source(config.spec.dataset.evaluation[0], config.spec.dataset.labels, dev,
                    read_labels=True)
    )  # fmt: skip


def test_a_folder_is_measured_as_the_stage_does(make: Make, dev: Path, tiny_model: Path) -> None:
    config = make()
    spec = config.spec
    play = spec.self_play.model_copy(update={"max_tokens": MaxTokens()})
    spec = spec.model_copy(update={"self_play": play})
    there = run(config.model_copy(update={"spec": spec})).scores[0]
    here = evaluate_model(
        tiny_model,
        "dev",
        load_source(spec.dataset.evaluation[0], spec.dataset.labels, dev, read_labels=True),
        spec.dataset.labels,
        context=spec.dataset.context,
        prompts=spec.model.prompts,
        max_prompt_tokens=spec.model.max_prompt_tokens,
    )
    between = {"weighted_f1_low", "weighted_f1_high", "sha256"}  # other draws, and no file
    assert here.model_dump(exclude=between) == there.model_dump(exclude=between)


def test_two_runs_are_equal(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = make("one"), make("two"), make("three")
    run(first)
    run(second)
    assert stored_bytes(first) == stored_bytes(second)
    manifest, _ = read_manifest(open_store(first.spec.storage), f"{first.output}/manifest.json")
    store = open_store(second.spec.storage)
    for part in manifest.parts:
        assert store.get(f"{second.output}/{part.path}")
    monkeypatch.setattr(stage, "PART_PROMPTS", 5)
    run(third)
    cut, _ = read_manifest(open_store(third.spec.storage), f"{third.output}/manifest.json")
    assert len(cut.parts) == 5 + 1 + 2  # predictions of both sources, and their dialogues
    assert cut.scores == manifest.scores


def test_the_selection_dataset_comes_first(make: Make) -> None:
    result = run(make(selectionDataset="test"))
    assert [s.source for s in result.scores] == ["test", "dev"]
    assert result.metrics["weightedF1"] == result.scores[0].weighted_f1


def test_the_selection_dataset_is_weighted_to_shares(make: Make, dev: Path) -> None:
    plain = run(make("plain"))
    labels = make().spec.dataset.labels
    support = [9, 0, 3, 0, 6, 0, 3]
    own = dict(zip(labels, [n / 21 for n in support], strict=True))
    same = run(make("same", own))
    assert same.scores == plain.scores
    rare = run(make("rare", {**own, labels[2]: 0.9}))
    assert rare.scores[0].weighted_f1 != plain.scores[0].weighted_f1
    assert rare.metrics["weightedF1"] == rare.scores[0].weighted_f1
    assert rare.scores[0].predicted_shares == plain.scores[0].predicted_shares
    assert rare.scores[1] == plain.scores[1]
    manifest, _ = read_manifest(open_store(make("rare").spec.storage), rare.manifest)
    assert {n for n, r in manifest.report["sources"].items() if "shares" in r} == {"dev"}
    with pytest.raises(BadInput) as caught:
        run(make("none", {**dict.fromkeys(labels, 0.0), labels[1]: 1.0}))
    assert str(caught.value) == (
        f"file://{dev}: no utterance's emotion has a share above 0 in `dataset.labelPrior`"
    )


def test_goes_on_where_it_was_killed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PART_PROMPTS", 5)
    undisturbed = make("whole")
    run(undisturbed)
    answer = stage._Model.answer
    asked: list[int] = []

    def killed_at_the_fourth(*arguments: Any) -> Any:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(0)
        return answer(*arguments)

    config = make("killed")
    monkeypatch.setattr(stage._Model, "answer", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    asked.clear()  # three of the six parts are left: the fourth call would be one too many
    run(config)
    assert len(asked) == 3
    assert stored_bytes(config) == stored_bytes(undisturbed)


def test_a_damaged_part_is_made_again(make: Make, tmp_path: Path) -> None:
    config = make()
    run(config)
    before = stored_bytes(config)
    folder = Path(config.output.removeprefix("file://"))
    (folder / "manifest.json").unlink()
    for part in folder.glob("predictions/dev/*.parquet"):
        part.write_bytes(part.read_bytes()[:50])
    for part in folder.glob("predictions/test/*.parquet"):
        part.unlink()
    run(config)
    assert stored_bytes(config) == before


def test_a_fixed_source_is_read_again(make: Make, dev: Path) -> None:
    config = make()
    run(config)
    folder = Path(config.output.removeprefix("file://"))
    (folder / "manifest.json").unlink()
    dev.write_text(dev.read_text().replace("fear", "disgust"))
    result = run(config)
    manifest, _ = read_manifest(open_store(config.spec.storage), result.manifest)
    assert manifest.report["sources"]["dev"]["support"] == [9, 0, 0, 0, 6, 3, 3]


def test_a_selection_dataset_that_was_edited_is_not_compared(make: Make, dev: Path) -> None:
    """An easier file would promote a model that is not better."""
    config = make()
    baseline = run(config).scores[0]
    assert baseline.source == "dev"
    assert baseline.sha256 == hashlib.sha256(dev.read_bytes()).hexdigest()
    before = dev.read_text()
    later = config.model_copy(
        update={"generation": 1, "output": f"{config.output}-later", "baseline": baseline}
    )
    dev.write_text(before.replace("fear", "joy"))
    with pytest.raises(BadInput, match=r"dev.jsonl has changed since the baseline was measured"):
        run(later)
    assert not (Path(later.output.removeprefix("file://")) / "manifest.json").exists()
    dev.write_text(before)
    assert run(later).scores[0].sha256 == baseline.sha256


def test_another_model_at_the_same_place_is_asked_again(
    make: Make, tiny_model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "model"
    shutil.copytree(tiny_model, place)
    config = make().model_copy(update={"policy_uri": f"file://{place}"})
    first = run(config)
    store = open_store(config.spec.storage)
    before = {p.path for p in read_manifest(store, first.manifest)[0].parts}
    (Path(config.output.removeprefix("file://")) / "manifest.json").unlink()
    make_tiny(place, seed=1)
    second = run(config)
    after = {p.path for p in read_manifest(store, second.manifest)[0].parts}
    # the dialogues do not follow from the model, and each prediction does
    shared = {re.sub(r"-[0-9a-f]{12}", "", path) for path in before & after}
    assert shared == {"dialogues/dev.jsonl.gz", "dialogues/test.jsonl.gz"}
    assert len(before) == len(after) == 4


@pytest.mark.parametrize(
    ("emotions", "message"),
    [
        ([None, None], "has no labels: an evaluation source needs them"),
        (["joy", "bliss"], "line 1: `labels` is `bliss`, an unknown emotion"),
    ],
)
def test_bad_sources(make: Make, dev: Path, emotions: list[str | None], message: str) -> None:
    write_source(dev, emotions)
    with pytest.raises(BadInput) as caught:
        run(make())
    assert str(caught.value).startswith(f"file://{dev} ")
    assert message in str(caught.value)


def test_as_a_program(make: Make, tmp_path: Path, dev: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(make().model_dump_json(by_alias=True))
    assert PROGRAM.main(["--config", str(config)]) == ExitCode.OK
    assert isinstance(decode_message((tmp_path / "log").read_text()), StageResult)
    dev.unlink()
    config.write_text(make("other").model_dump_json(by_alias=True))
    assert PROGRAM.main(["--config", str(config)]) == ExitCode.BAD_INPUT
    assert f"{dev} does not exist" in (tmp_path / "log").read_text()


def test_engine_arguments(make_spec: Callable[..., EvolutionSpec]) -> None:
    mixed = make_spec(
        selfPlay={"engine": "VLLM", "engineArgs": {"gpu_memory_utilization": 0.5}},
        evaluation={"engine": "Transformers", "batchSize": 9},
    )
    assert mixed.evaluation_engine is Engine.TRANSFORMERS
    assert evaluation_arguments(mixed) == {"batch_size": 9}
    vllm = make_spec(selfPlay={"engine": "VLLM", "engineArgs": {"gpu_memory_utilization": 0.5}})
    assert evaluation_arguments(vllm) == {"gpu_memory_utilization": 0.5}
