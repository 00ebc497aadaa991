"""The warm start stage as a whole, on the tiny model and a real store."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.unit.jobs.stages.warm_start_dialogues import LABELS, jsonl

from selfemo_api.contract import ENV_WORK, StageConfig
from selfemo_api.metrics import WarmStartMetric
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, View
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.acceleration import bf16_emulation
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.errors import BadInput, StageError, Terminated
from selfemo_jobs.models.description_file import parse_description
from selfemo_jobs.models.fetch import fetch_model, load_model
from selfemo_jobs.models.model_folder import check_model_folder, model_files
from selfemo_jobs.models.model_reference import resolve_model
from selfemo_jobs.models.stage_models import put_description
from selfemo_jobs.runtime.manifest import read_manifest
from selfemo_jobs.stages.evaluate.stage import PROGRAM as EVALUATE
from selfemo_jobs.stages.warmstart import early_stopping, supervised_trainer
from selfemo_jobs.stages.warmstart.examples import Example
from selfemo_jobs.stages.warmstart.selection import SelectionDataset, in_format_of
from selfemo_jobs.stages.warmstart.stage import PROGRAM, training_views
from selfemo_jobs.stages.warmstart.supervised_trainer import SupervisedTrainer
from selfemo_jobs.store import open_store

Make = Callable[..., StageConfig]


@pytest.fixture
def make(
    tmp_path: Path,
    tiny_model: Path,
    make_spec: Callable[..., EvolutionSpec],
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> Make:
    """Configuration of a warm start of the tiny model, whose dialogues are easy to learn."""
    train = jsonl(tmp_path / "train.jsonl", 8).as_uri()
    dev = jsonl(tmp_path / "dev.jsonl", 5).as_uri()
    sources = [
        {"name": "train", "uri": train, "use": "SelfPlay", "offset": 6},
        {"name": "labeled", "uri": train, "use": "Labeled", "limit": 6},
        {"name": "dev", "uri": dev, "use": "Evaluation"},
    ]

    def build(
        store: str = "store",
        stage: Stage = Stage.WARM_START,
        policy: str | None = None,
        **changes: Any,
    ) -> StageConfig:
        # a scratch folder for each storage: checkpoints hold for the same settings anywhere
        monkeypatch.setenv(ENV_WORK, str(tmp_path / "work" / store))
        base: dict[str, Any] = {
            "model": {"uri": tiny_model.as_uri()},
            "storage": {"uri": f"file://{tmp_path}/{store}"},
            "dataset": {"labels": list(LABELS), "context": {"past": 1}, "sources": sources},
            "warmStart": {
                "steps": 60,
                "evaluationSteps": 10,
                "patience": 2,
                "batchSize": 12,
                "learningRate": 3e-3,
            },
            "training": {"checkpointSteps": 7},
        }
        for name, value in changes.items():
            base[name] = {**base.get(name, {}), **value}
        return make_config(stage, generation=0, spec=make_spec(**base), policy=policy)

    return build


def run(config: StageConfig) -> StageResult:
    result = PROGRAM.run(config)
    assert isinstance(result, StageResult)
    return result


def model_folder(result: StageResult) -> Path:
    assert result.model_uri is not None
    return Path(result.model_uri.removeprefix("file://"))


def weights_of(result: StageResult) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(model_folder(result) / "model.safetensors")
    return weights


def manifest_bytes(config: StageConfig) -> bytes:
    return open_store(config.spec.storage).get(f"{config.output}/manifest.json")


def evaluations_of(config: StageConfig) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = json.loads(manifest_bytes(config))["report"]["evaluations"]
    return points


def test_it_learns_and_publishes_a_model(make: Make, tiny_model: Path, tmp_path: Path) -> None:
    config = make()
    result = run(config)
    assert re.fullmatch(rf"{re.escape(config.output)}/model-[0-9a-f]{{12}}", str(result.model_uri))
    assert config.output.endswith(stage_prefix(0, Stage.WARM_START))
    assert result.rows == result.metrics[WarmStartMetric.UTTERANCES] == 6 * 4
    assert result.metrics[WarmStartMetric.EXAMPLES] == 6 * (4 + 3)
    assert set(result.metrics) == set(WarmStartMetric)
    assert result.metrics[WarmStartMetric.WEIGHTED_F1_BEFORE] < 0.7
    assert result.metrics[WarmStartMetric.WEIGHTED_F1] > 0.9
    check_model_folder(model_folder(result), result.model_uri)
    old, new = load_file(tiny_model / "model.safetensors"), weights_of(result)
    assert old.keys() == new.keys()
    assert torch.equal(old["model.embed_tokens.weight"], new["model.embed_tokens.weight"])
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert {name.split(".")[2] for name in moved if "layers" in name} == set("0123")
    # its files are parts of the manifest, whose hashes are checked when a stage loads the model
    manifest, _ = read_manifest(open_store(config.spec.storage), result.manifest)
    assert {p.path for p in manifest.parts} == {
        f"{manifest.model}/{path.name}" for path in model_files(model_folder(result))
    }
    damaged = model_folder(result) / "config.json"
    damaged.write_text(damaged.read_text() + " ")
    with pytest.raises(BadInput, match="does not match the manifest"):
        fetch_model(result.model_uri, None, open_store(config.spec.storage), tmp_path / "w")


@pytest.mark.parametrize("engine_args", [{}, {"dtype": "bfloat16", "batch_size": 3}])
def test_the_evaluate_stage_measures_the_same_f1(
    make: Make, engine_args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = set()
    generate = TransformersEngine.generate

    def recorded(engine: TransformersEngine, *arguments: Any) -> Any:
        formats.add(engine.model.dtype)
        return generate(engine, *arguments)

    monkeypatch.setattr(TransformersEngine, "generate", recorded)
    changes: dict[str, Any] = {
        "selfPlay": {"engineArgs": engine_args},
        "warmStart": {"steps": 3, "evaluationSteps": 3, "learningRate": 5e-4},
    }
    result = run(make(**changes))
    assert 0 < result.metrics[WarmStartMetric.WEIGHTED_F1] < 1
    evaluated = EVALUATE.run(make(stage=Stage.EVALUATE, policy=result.model_uri, **changes))
    assert isinstance(evaluated, StageResult)
    assert evaluated.scores[0].weighted_f1 == result.metrics[WarmStartMetric.WEIGHTED_F1]
    assert formats == {getattr(torch, engine_args.get("dtype", "float32"))}


def test_it_ends_when_f1_stops_rising_and_keeps_the_best(make: Make) -> None:
    config = make()
    result = run(config)
    points = evaluations_of(config)
    f1s = [point["weightedF1"] for point in points]
    best = f1s.index(max(f1s))
    assert [point["step"] for point in points] == list(range(0, 10 * len(points), 10))
    assert len(points) == best + 1 + 2, "patience is 2"
    assert result.metrics[WarmStartMetric.STEPS] == points[-1]["step"] < 60
    assert result.metrics[WarmStartMetric.BEST_STEP] == points[best]["step"] > 0
    assert result.metrics[WarmStartMetric.WEIGHTED_F1] == f1s[best]
    assert points[0]["loss"] is None
    assert points[-1]["loss"] == result.metrics[WarmStartMetric.LOSS] < points[1]["loss"]


def description_files(config: StageConfig) -> list[bytes]:
    store = open_store(config.spec.storage)
    folder = read_manifest(store, f"{config.output}/manifest.json")[0].model
    return [store.get(f"{config.output}/{folder}/{name}") for name in ("selfemo.json", "README.md")]


def test_a_model_describes_itself_with_the_same_bytes_each_time(
    make: Make, tiny_model: Path, tmp_path: Path
) -> None:
    config = make(warmStart={"steps": 10})
    before = {path.name: path.read_bytes() for path in tiny_model.iterdir()}
    result = run(config)
    first = description_files(config)
    resolved = resolve_model(result.manifest)
    assert resolved.folder == model_folder(result)
    assert resolved.description.labels == list(LABELS)
    assert resolved.description.origin is not None
    assert resolved.description.origin.stage == "WarmStart"
    manifest, _ = read_manifest(open_store(config.spec.storage), result.manifest)
    hashes = {part.path.removeprefix(f"{manifest.model}/"): part.sha256 for part in manifest.parts}
    assert resolved.description.weights_sha256 == hashes
    shutil.rmtree(tmp_path / "store")
    run(config)
    assert description_files(config) == first
    assert {path.name: path.read_bytes() for path in tiny_model.iterdir()} == before
    # a policy that is handed on gets the description of the stage that handed it on
    again = make(store="second", policy=result.model_uri, warmStart={"learningRate": 1e-12})
    second = resolve_model(run(again).manifest).description
    assert second.weights_sha256 == hashes and second.origin is not None
    assert second.origin.storage == again.spec.storage.uri != config.spec.storage.uri


def test_an_attempt_after_the_end_leaves_the_scores(make: Make) -> None:
    """It was believed to be dead, and the model was evaluated in the meantime."""
    config = make(warmStart={"steps": 10})
    uri = str(run(config).model_uri)
    store = open_store(config.spec.storage)
    description = parse_description(store.get(f"{uri}/selfemo.json"), uri)
    put_description(store, uri, description.model_copy(update={"license": "mit"}))
    written = description_files(config)
    replace(PROGRAM, always_runs=True).run(config)
    assert description_files(config) == written


def test_without_a_gain_the_model_is_handed_on_unchanged(make: Make, tiny_model: Path) -> None:
    result = run(make(warmStart={"learningRate": 1e-12, "steps": 30}))
    assert result.metrics[WarmStartMetric.BEST_STEP] == 0
    assert result.metrics[WarmStartMetric.STEPS] == 20, "patience is 2"
    for path in model_files(tiny_model):
        assert (model_folder(result) / path.name).read_bytes() == path.read_bytes()


def test_the_last_step_is_evaluated_too(make: Make) -> None:
    config = make(warmStart={"steps": 15, "patience": 9})
    assert run(config).metrics[WarmStartMetric.STEPS] == 15
    assert [point["step"] for point in evaluations_of(config)] == [0, 10, 15]


def test_only_the_last_layer_moves(make: Make, tiny_model: Path) -> None:
    settings = {"learningRate": 1e-2, "patience": 6}
    result = run(make(training={"trainLayers": 1}, warmStart=settings))
    assert result.metrics[WarmStartMetric.BEST_STEP] > 0
    old, new = load_file(tiny_model / "model.safetensors"), weights_of(result)
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved and all("layers.3." in name or name == "model.norm.weight" for name in moved)


def test_adapters_are_merged(make: Make, tiny_model: Path) -> None:
    lora = {"rank": 16, "alpha": 64, "dropout": 0.1}
    config = make(training={"lora": lora}, warmStart={"patience": 4})
    result = run(config)
    assert result.metrics[WarmStartMetric.WEIGHTED_F1] > 0.9
    old, new = load_file(tiny_model / "model.safetensors"), weights_of(result)
    assert old.keys() == new.keys(), "no adapter weights are left"
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert len(moved) == 4 * 7 and all(name.endswith("proj.weight") for name in moved)
    evaluated = EVALUATE.run(make(stage=Stage.EVALUATE, policy=result.model_uri))
    assert isinstance(evaluated, StageResult)
    f1 = result.metrics[WarmStartMetric.WEIGHTED_F1]
    assert evaluated.scores[0].weighted_f1 == pytest.approx(f1, abs=0.05)


@pytest.mark.parametrize(
    ("precision", "emulated"), [("Float32", False), ("BFloat16", False), ("BFloat16", True)]
)
def test_gradient_checkpointing_changes_nothing_but_rounding(
    make: Make, monkeypatch: pytest.MonkeyPatch, precision: str, emulated: bool
) -> None:
    monkeypatch.setattr(bf16_emulation, "_slow", lambda: emulated)  # on any processor
    losses = []
    for name, checkpointing in (("plain", False), ("checkpointing", True)):
        config = make(
            store=name,
            training={"gradientCheckpointing": checkpointing, "precision": precision},
            warmStart={"steps": 10},
        )
        run(config)
        losses.append(evaluations_of(config)[1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2 if precision == "BFloat16" else 1e-4)


class Killed(Exception):
    """Stands in for SIGKILL: nothing is saved after it."""


@pytest.mark.parametrize(
    ("options", "steps_before"),
    [
        *(({}, 3), ({}, 9), ({}, 14)),
        *(({"lora": {"rank": 4, "dropout": 0.2}}, 9), ({"trainLayers": 1}, 12)),
    ],
)
def test_a_killed_warm_start_continues_to_the_same_bytes(
    make: Make, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], steps_before: int
) -> None:
    whole = make(store="whole", training=options)
    run(whole)
    config = make(store="killed", training=options)
    made: list[int] = []
    make_step = SupervisedTrainer.make_step

    def killed_after(trainer: SupervisedTrainer) -> float:
        if len(made) == steps_before:
            raise Killed
        made.append(trainer.step)
        return make_step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTrainer, "make_step", killed_after)
        with pytest.raises(Killed):
            run(config)

    def recorded(trainer: SupervisedTrainer) -> float:
        made.append(trainer.step)
        return make_step(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTrainer, "make_step", recorded)
        run(config)
    assert manifest_bytes(config) == manifest_bytes(whole), "the hashes of the weights are in it"
    repeated = len(made) - len(set(made))
    assert repeated <= steps_before % 7, "at most the steps since the last checkpoint"


def test_sigterm_during_training_saves_the_step(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = make(store="whole")
    run(whole)
    config = make(store="terminated")
    make_step = SupervisedTrainer.make_step

    def terminated_at_4(trainer: SupervisedTrainer) -> float:
        loss = make_step(trainer)
        if trainer.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTrainer, "make_step", terminated_at_4)
        with pytest.raises(Terminated):
            run(config)
    assert signal.getsignal(signal.SIGTERM) is before
    (folder,) = (
        tmp_path / "work" / "terminated" / "default" / "demo-00000000" / "000-warmstart"
    ).glob("training-*")
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["checkpoint-0000004-00001"]
    run(config)
    assert manifest_bytes(config) == manifest_bytes(whole)


def test_sigterm_during_an_evaluation_saves_the_steps_before(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(store="whole")
    run(whole)
    config = make(store="terminated")
    measured = SelectionDataset.weighted_f1
    calls: list[int] = []

    def terminated(selection: SelectionDataset, *arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 2:
            raise Terminated("as the handler of SIGTERM raises it")
        return measured(selection, *arguments)

    made: list[int] = []
    make_step = SupervisedTrainer.make_step

    def recorded(trainer: SupervisedTrainer) -> float:
        made.append(trainer.step)
        return make_step(trainer)

    monkeypatch.setattr(SupervisedTrainer, "make_step", recorded)
    with monkeypatch.context() as patch:
        patch.setattr(SelectionDataset, "weighted_f1", terminated)
        with pytest.raises(Terminated):
            run(config)
    run(config)
    assert manifest_bytes(config) == manifest_bytes(whole)
    assert len(made) == len(set(made)), "no step was made twice"


def test_a_damaged_checkpoint_does_not_count(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = make(store="whole")
    run(whole)
    config = make(store="damaged")
    with monkeypatch.context() as patch:
        patch.setattr(early_stopping, "save_checkpoint", _damaging(early_stopping.save_checkpoint))
        patch.setattr(SupervisedTrainer, "make_step", _killed)
        with pytest.raises(Killed):
            run(config)
    run(config)
    assert manifest_bytes(config) == manifest_bytes(whole)


def _killed(_trainer: SupervisedTrainer) -> float:
    raise Killed


def _damaging(save: Callable[..., None]) -> Callable[..., None]:
    def save_and_damage(folder: Path, *arguments: Any) -> None:
        save(folder, *arguments)
        for path in folder.glob("*/state.safetensors"):
            path.write_bytes(path.read_bytes()[:-1])

    return save_and_damage


def test_other_data_does_not_continue_from_a_checkpoint(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = make()
    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTrainer, "make_step", _killed)
        with pytest.raises(Killed):
            run(config)
    work = tmp_path / "work" / "store" / "default" / "demo-00000000" / "000-warmstart"
    (before,) = work.glob("training-*")
    jsonl(tmp_path / "train.jsonl", 9)
    text = (tmp_path / "train.jsonl").read_text().replace("well", "hm")
    (tmp_path / "train.jsonl").write_text(text)
    run(config)
    (after,) = work.glob("training-*")
    assert before.name != after.name


def test_the_selection_dataset_is_weighted_by_the_label_prior(make: Make) -> None:
    prior = {"joy": 0.9, "anger": 0.1}
    config = make(
        dataset={"labelPrior": prior},
        evaluation={"useLabelPrior": True},
        warmStart={"steps": 10},
    )
    result = run(config)
    evaluated = EVALUATE.run(
        make(
            stage=Stage.EVALUATE,
            policy=result.model_uri,
            dataset={"labelPrior": prior},
            evaluation={"useLabelPrior": True},
        )
    )
    assert isinstance(evaluated, StageResult)
    assert evaluated.scores[0].weighted_f1 == result.metrics[WarmStartMetric.WEIGHTED_F1]


def test_a_response_ends_where_self_play_ends_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    losses = supervised_trainer.example_losses

    def recorded(model: Any, batch: Sequence[Example], *arguments: Any) -> torch.Tensor:
        lengths.extend(len(example.completion) for example in batch)
        return losses(model, batch, *arguments)

    monkeypatch.setattr(supervised_trainer, "example_losses", recorded)
    for most, longest in ((12, 4), (3, 3)):
        lengths.clear()
        run(
            make(
                store=f"{most}",
                selfPlay={"maxTokens": {"recognizer": 6, "responder": most}},
                warmStart={"steps": 2},
            )
        )
        assert max(lengths) == longest


def test_the_judge_learns_to_read_its_views(make: Make) -> None:
    views = [{"past": 1}, {"past": 0}, {"past": 1, "future": 1}]
    config = make(reward={"judge": {"views": views}}, warmStart={"steps": 1})
    assert training_views(config.spec) == [View(past=1), View(), View(past=1, future=1)]
    assert run(config).metrics[WarmStartMetric.EXAMPLES] == 6 * (3 * 4 + 3)


def test_progress_has_loss_rate_and_f1(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    config = make(warmStart={"steps": 11})
    with caplog.at_level("INFO"):
        run(config)
    lines = [r.__dict__["fields"] for r in caplog.records if r.msg == "progress"]
    steps = [line for line in lines if "loss" in line]
    measured = [line for line in lines if "loss" not in line]
    assert [line["done"] for line in steps] == list(range(1, 12))
    assert {line["total"] for line in lines} == {11}
    assert all(line["learningRate"] > 0 for line in steps)
    points = evaluations_of(config)
    assert [line["done"] for line in measured] == [p["step"] for p in points] == [0, 10, 11]
    assert [line["weightedF1"] for line in measured] == [p["weightedF1"] for p in points]
    assert [line["weightedF1"] for line in steps] == [points[0]["weightedF1"]] * 10 + [
        points[1]["weightedF1"]
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"trainLayers": 9}}, r"`training\.trainLayers` is 9, but the model has 4"),
        ({"resources": {"gpusPerNode": 1}}, r"`resources\.gpusPerNode` is 1, but PyTorch finds no"),
    ],
)
def test_bad_input(make: Make, changes: dict[str, Any], message: str) -> None:
    config = make(**changes)
    with pytest.raises(BadInput, match=message):
        run(config)


def test_a_labeled_source_without_labels_is_named(make: Make, tmp_path: Path) -> None:
    turns = [{"speaker": "A", "text": "oh"}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"id": "0", "turns": turns}) + "\n")
    with pytest.raises(BadInput, match=r"train\.jsonl has no labels: the warm start needs them"):
        run(make())


def test_a_prompt_that_is_too_long_is_named(make: Make, tmp_path: Path) -> None:
    text = (tmp_path / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(text.replace("oh", "oh " * 40))
    with pytest.raises(BadInput, match=r"train\.jsonl: dialogue 0 utterance 0: .*maxPromptTokens"):
        run(make(model={"maxPromptTokens": 32}))


def test_a_loss_that_is_not_finite_is_bad_input(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SupervisedTrainer, "make_step", lambda _trainer: float("nan"))
    with pytest.raises(BadInput, match=r"diverged: .*lower `overrides\.warmStart\.learningRate`"):
        run(make())


def test_a_lack_of_memory_names_the_settings(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_trainer: SupervisedTrainer) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(SupervisedTrainer, "make_step", full)
    with pytest.raises(StageError, match=r"memory.*: set `training\.lora` or .*microBatchSize`\)$"):
        run(make())


def test_the_measured_copy_is_the_model_that_the_evaluation_loads(tiny_model: Path) -> None:
    """Weights are rounded to bfloat16; the frequencies of rotary positions stay float32."""
    copied = in_format_of("bfloat16", load_model(tiny_model, torch.float32))
    loaded = load_model(tiny_model, torch.bfloat16)
    tensors = [
        {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for model in (copied, loaded)
    ]
    assert tensors[0].keys() == tensors[1].keys()
    assert {tensor.dtype for tensor in tensors[0].values()} == {torch.bfloat16, torch.float32}
    for name, tensor in tensors[0].items():
        assert tensor.dtype is tensors[1][name].dtype
        assert torch.equal(tensor, tensors[1][name]), name
