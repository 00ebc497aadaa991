"""What a run takes: tokens, hours, bytes and requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import recorded_demo
from tests.unit.jobs.stages.check.world import LABELS, World

from selfemo_api.dataset_labels import MELD
from selfemo_api.recipes import resolve
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage
from selfemo_jobs.inference import targets
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.prompts import prompt_set_of
from selfemo_jobs.stages.check import token_counts, traffic
from selfemo_jobs.stages.check.architecture_size import QWEN3, decoder_size
from selfemo_jobs.stages.check.devices import DEVICES, USUAL, find_device
from selfemo_jobs.stages.check.dry_run import dry_run, estimate_of
from selfemo_jobs.stages.check.estimate import (
    RunEstimate,
    estimate_run,
    stage_seconds,
    training_passes,
)
from selfemo_jobs.stages.check.token_counts import (
    StageTokens,
    generation_tokens,
    score_tokens,
    self_play_tokens,
    train_tokens,
)
from selfemo_jobs.stages.check.workload import Workload
from selfemo_jobs.stages.evaluate import expression_sample
from selfemo_jobs.stages.flywheel import kept_rows
from selfemo_jobs.store import s3

WORK = Workload(
    dialogues=100,
    episodes=200,
    evaluated=50,
    selection=30,
    labeled=40,
    recognizer_prompt=60,
    responder_prompt=50,
    views=[40, 80],
    response_prompt=55,
    answer=2,
    label=1,
    response=12,
)
DEMO = Path(recorded_demo.__file__).parent / "storage" / "default" / "demo-02c8c86b"


def spec_of(recipe: str = "paper-v1", **changes: Any) -> EvolutionSpec:
    source = {"uri": "file:///demo.jsonl", "format": "JSONL"}
    spec = {
        "recipe": recipe,
        "model": {"uri": "file:///model"},
        "dataset": {
            "labels": list(MELD),
            "sources": [
                {"name": "train", "use": "SelfPlay", **source},
                {"name": "few", "use": "Labeled", **source},
                {"name": "dev", "use": "Evaluation", **source},
            ],
        },
        "storage": {"uri": "s3://bucket/runs"},
        **changes,
    }
    return EvolutionSpec.model_validate(resolve(spec))


def of_qwen(spec: EvolutionSpec, name: str = "Qwen3-8B", **changes: Any) -> RunEstimate:
    device = changes.pop("device", USUAL)
    return estimate_run(spec, WORK, decoder_size(QWEN3[name]), device, **changes)


@pytest.mark.parametrize(
    ("name", "billions"), [("Qwen3-0.6B", 0.596), ("Qwen3-4B", 4.022), ("Qwen3-8B", 8.191)]
)
def test_the_sizes_are_the_published_ones(name: str, billions: float) -> None:
    size = decoder_size(QWEN3[name])
    assert size is not None
    assert size.parameters / 1e9 == pytest.approx(billions, abs=0.001)
    assert decoder_size(QWEN3[name], size.parameters) == pytest.approx(size)


def test_a_configuration_without_the_numbers_has_no_size() -> None:
    assert decoder_size({"hidden_size": 8}) is None


def test_self_play_reads_each_prompt_once_and_draws_a_group() -> None:
    spec = spec_of(selfPlay={"groupSize": 4})
    tokens = self_play_tokens(spec, WORK)
    assert tokens.read == 200 * (60 + 50)
    assert tokens.generated == 200 * 4 * (2 + 12)
    one = spec_of(selfPlay={"groupSize": 4, "roles": ["Recognizer"]})
    assert self_play_tokens(one, WORK).read == 200 * 60


def test_the_recognizer_alone_plays_one_turn() -> None:
    spec = spec_of(selfPlay={"turns": 3, "roles": ["Recognizer"]})
    assert token_counts.groups_of(spec, WORK) == {Role.RECOGNIZER: 200}


def test_the_responder_may_answer_a_share_of_the_targets() -> None:
    whole, half = (spec_of(selfPlay={"turns": 2, "responderShare": share}) for share in (1.0, 0.5))
    assert token_counts.groups_of(whole, WORK) == {Role.RECOGNIZER: 400, Role.RESPONDER: 400}
    # half of the episodes end after the recognizer's first turn
    assert token_counts.groups_of(half, WORK) == {Role.RECOGNIZER: 300, Role.RESPONDER: 200}


def test_the_judge_reads_each_view_and_each_response() -> None:
    judge = {"weight": 0.5, "samples": 3, "maxTokens": 0, "views": [{"past": 0}, {"past": 2}]}
    spec = spec_of(selfPlay={"groupSize": 4}, reward={"judge": judge})
    tokens = score_tokens(spec, WORK)
    assert tokens.read == 200 * (40 + 80) + 200 * 4 * 55
    assert tokens.generated == (200 * 2 + 200 * 4) * 3 * 1
    alone = spec_of(selfPlay={"groupSize": 4}, reward={"judge": {**judge, "weight": 0}})
    assert score_tokens(alone, WORK).read == 200 * 4 * 55


def test_training_reads_a_groups_prompt_once_in_an_epoch() -> None:
    changes: dict[str, Any] = {
        "selfPlay": {"groupSize": 4, "roles": ["Recognizer"]},
        "flywheel": {"keep": 0.5},
        "training": {"imitation": 1.0, "batchSize": 20, "microBatchSize": 20},
        "overrides": {"flywheel": {"replay": 0}, "training": {"epochs": 2}},
    }
    tokens = train_tokens(spec_of(**changes), WORK)
    # of 160 groups without labels a half, and all 40 with labels; of four completions and an
    # imitated one each: 30 steps an epoch
    assert tokens.trained == 2 * 120 * (60 + 5 * 2)
    changes["overrides"] = {"flywheel": {"replay": 0}, "training": {"epochs": 2, "maxSteps": 10}}
    assert train_tokens(spec_of(**changes), WORK).trained == 10 * 20 / 600 * 120 * (60 + 5 * 2)


def test_the_whole_run_evaluates_the_baseline_too() -> None:
    spec = spec_of(stopping={"maxGenerations": 3})
    each, run = generation_tokens(spec, WORK), of_qwen(spec)
    assert run.tokens[Stage.EVALUATE].read == 4 * each[Stage.EVALUATE].read
    alone = spec_of(selfPlay={"roles": ["Recognizer"]})
    assert generation_tokens(alone, WORK)[Stage.EVALUATE].read == 50 * 60
    # of each eighth utterance of the selection dataset: a response, its reading, and a real turn's
    expression = 30 / 8 * (50 + 55 + 60)
    assert each[Stage.EVALUATE].read == pytest.approx(50 * 60 + expression)
    assert run.tokens[Stage.TRAIN].trained == 3 * each[Stage.TRAIN].trained
    assert Stage.WARM_START not in run.tokens
    assert run.engine_starts == 3 * 3 + 4 + 3
    assert Stage.WARM_START in of_qwen(spec_of(warmStart={"steps": 10})).tokens


def test_hours_follow_from_the_device_and_the_model() -> None:
    spec = spec_of()
    hours = {d.name: of_qwen(spec, device=d).total_hours for d in DEVICES}
    assert hours["L4"] > hours["A100"] > hours["H100"] > hours["H200"]
    assert of_qwen(spec, "Qwen3-0.6B").total_hours < of_qwen(spec, "Qwen3-4B").total_hours
    on_cpu = spec_of(resources={"gpusPerNode": 0})
    assert of_qwen(on_cpu).gpu_hours == {}
    assert of_qwen(on_cpu).device == ""


def test_generating_is_bound_by_the_memory_where_few_are_drawn_together() -> None:
    """A single sequence reads all weights for each token: 16 GB at 0.6 of 3,350 GB/s."""
    size = decoder_size(QWEN3["Qwen3-8B"])
    assert size is not None
    tokens = StageTokens(generated=1000, completions=1, context=0)
    seconds = stage_seconds(tokens, spec_of(), size, USUAL)
    assert seconds == pytest.approx(1000 * 2 * (size.body + size.head) / (0.6 * 3.35e12), rel=0.01)


def test_adapters_and_checkpointing_change_the_passes() -> None:
    def passes(**training: Any) -> float:
        return training_passes(spec_of(overrides={"training": training.pop("own", {})}, **training))

    plain = {"gradientCheckpointing": False}
    assert passes(own=plain) == 3.0
    assert passes() == 4.0
    assert passes(own=plain, training={"lora": {"rank": 8}}) == 2.0
    assert passes(own=plain, training={"trainLayers": 1}) == 2.0


def test_the_numbers_of_other_modules_are_theirs() -> None:
    assert targets.PART_PROMPTS == traffic._PART_PROMPTS
    assert kept_rows.PART_ROWS == traffic._KEPT_ROWS
    assert s3._PART_BYTES == traffic._PART_BYTES
    assert expression_sample.MOST_RESPONSES == token_counts.MOST_RESPONSES
    assert expression_sample.RESPONSES_PER_UTTERANCE == token_counts.RESPONSES_PER_UTTERANCE


def _manifest(stage: Stage) -> dict[str, Any]:
    file = DEMO / "generations" / "001" / stage.slug / "manifest.json"
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_the_bytes_of_a_recorded_run_are_near_the_estimate() -> None:
    spec = spec_of("small-v1")
    play = _manifest(Stage.SELF_PLAY)
    answer = play["metrics"]["tokens"] / play["metrics"]["candidates"]
    work = WORK.model_copy(update={"episodes": int(play["metrics"]["groups"]), "answer": answer})
    for stage in (Stage.SELF_PLAY, Stage.SCORE):
        actual = sum(part["size"] for part in _manifest(stage)["parts"])
        scored = _manifest(stage)["rows"] / play["rows"]
        assert traffic._row_bytes(spec, work)[stage] * scored == pytest.approx(actual, rel=0.25)


def test_the_tokens_of_a_recorded_run_are_near_the_estimate() -> None:
    play, train = _manifest(Stage.SELF_PLAY), _manifest(Stage.TRAIN)
    answer = play["metrics"]["tokens"] / play["metrics"]["candidates"]
    counts = {"episodes": int(play["metrics"]["groups"]), "labeled": 353}
    work = WORK.model_copy(update={**counts, "answer": answer})
    training = {"training": {"maxSteps": 300}}
    spec = spec_of("small-v1", flywheel={"keep": 0.6}, overrides=training)
    assert self_play_tokens(spec, work).generated == play["metrics"]["tokens"]
    # a step has 140 completions of which 28 are imitated: these have no tokens in the metric
    trained = train_tokens(spec, work).completions * answer * 4 / 5
    assert trained == pytest.approx(train["metrics"]["tokens"], rel=0.15)


def test_more_models_stay_if_all_are_kept() -> None:
    spec = spec_of(stopping={"maxGenerations": 4})
    kept = {
        keep: of_qwen(spec_of(stopping={"maxGenerations": 4}, storage=storage)).traffic
        for keep in ("All", "Best")
        for storage in [{"uri": "s3://bucket/runs", "keep": keep}]
    }
    assert kept["All"].stored_bytes > 1.9 * kept["Best"].stored_bytes
    assert kept["All"].written_bytes == kept["Best"].written_bytes
    assert of_qwen(spec).traffic.jobs == 3 + 4 * 6


def test_the_device_is_found_by_its_name() -> None:
    assert find_device("NVIDIA A100-SXM4-80GB") == DEVICES[2]
    assert find_device("AMD Instinct MI300X OAM") == DEVICES[5]
    assert find_device("NVIDIA L40S") == DEVICES[3]
    assert find_device("") is None


def test_the_check_counts_what_a_run_reads(world: World) -> None:
    config = world.config()
    output, findings = dry_run(config)
    assert not findings.problems
    work = Workload.model_validate(output.report["workload"])
    spec, tokenizer = config.spec, load_tokenizer(world.model)
    assert work.dialogues == 6  # four to play, and the two labeled ones
    assert work.evaluated == 24
    prompts = prompt_set_of(spec.model)
    lengths = [
        len(prompts.label_tokens(tokenizer, LABELS)) and count
        for count in prompts.label_tokens(tokenizer, LABELS).values()
    ]
    assert work.label == max(lengths)
    assert work.recognizer_prompt > work.answer > 1
    estimate = estimate_of(spec, output)
    assert estimate is not None
    assert set(estimate.tokens) == {Stage.SELF_PLAY, Stage.SCORE, Stage.TRAIN, Stage.EVALUATE}
    assert estimate.gpu_hours == {}  # `tests-v1` has no GPU


def test_there_is_no_estimate_of_an_input_with_problems(world: World) -> None:
    world.spec["model"]["maxPromptTokens"] = 32
    config = world.config()
    output, findings = dry_run(config)
    assert findings.problems
    assert estimate_of(config.spec, output) is None
