"""A generation over dialogues whose turns have several labels, through the real stages.

The dialogues are invented, in the form of GoEmotions: a turn has one emotion or several, and each
follows from a word. A tiny model learns a part of it before the generation begins.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, jaccard_score
from sklearn.preprocessing import MultiLabelBinarizer
from tests.unit.jobs.stages.stage_programs import PROGRAMS
from transformers import AutoModelForCausalLM

from selfemo_api.contract import ENV_SHARD, ENV_WORK, StageConfig
from selfemo_api.dataset_labels import MELD
from selfemo_api.results import SourceScore, StageResult
from selfemo_api.spec import EvolutionSpec, View
from selfemo_api.stages import Stage, stages_of
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
)
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.prompts import load_prompt_set
from selfemo_jobs.report.page import render
from selfemo_jobs.report.report_builder import build_report
from selfemo_jobs.report.run_info import RunInfo
from selfemo_jobs.runtime.manifest import Manifest, read_manifest
from selfemo_jobs.runtime.run_reader import read_records
from selfemo_jobs.runtime.schemas import CANDIDATES, SCORED
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.warmstart.examples import examples_of
from selfemo_jobs.stages.warmstart.options import WarmStartOptions
from selfemo_jobs.stages.warmstart.supervised_trainer import train_steps
from selfemo_jobs.store import join, open_store

#: The word of each emotion.
WORDS = dict(zip(MELD, ("the", "what", "no", "oh", "yes", "up", "out"), strict=True))
PAIRS = (("surprise", "joy"), ("sadness", "anger"), ("fear", "sadness"))
FILLERS = ("well", "so", "they", "with", "about")


def dialogues(count: int, seed: int, *, several: bool = True) -> list[Dialogue]:
    """Return dialogues of four turns; every third turn has two emotions if there may be several.

    A fifth of the words are missing, so that no model reads every emotion.
    """
    chance = random.Random(seed)
    result = []
    for number in range(count):
        turns = []
        for turn in range(4):
            single = not several or chance.random() < 0.65
            labels = (chance.choice(MELD),) if single else chance.choice(PAIRS)
            words = [WORDS[label] for label in labels if chance.random() < 0.8]
            words += chance.choices(FILLERS, k=2)
            turns.append(Utterance("AB"[turn % 2], " ".join(words), labels))
        result.append(Dialogue(f"d{number}", tuple(turns)))
    return result


def write(path: Path, some: list[Dialogue]) -> dict[str, str]:
    """Write dialogues as JSON Lines, and return the fields of their source."""
    lines = [
        {
            "id": d.id,
            "turns": [
                {"speaker": t.speaker, "text": t.text, "labels": list(t.labels)} for t in d.turns
            ],
        }
        for d in some
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"name": path.stem, "uri": path.as_uri(), "format": "JSONL"}


@pytest.fixture(scope="module")
def policy(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads most of the emotions, and names several where it sees them."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokenizer = load_tokenizer(tiny_model)
    examples, _ = examples_of(
        dialogues(60, seed=1),
        MELD,
        load_prompt_set("compact-v1"),
        tokenizer,
        views=[View(past=0)],
        past=0,
        max_prompt_tokens=128,
    )
    options = WarmStartOptions(steps=60, learning_rate=2e-3, responder_share=0.0)
    train_steps(model, tokenizer, examples, [], options)
    folder = tmp_path_factory.mktemp("policy")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Generation:
    """The results of the stages of a generation."""

    def __init__(self, spec: EvolutionSpec, results: dict[Stage, StageResult]) -> None:
        self._store = open_store(spec.storage)
        self.spec = spec
        self.results = results

    def manifest(self, stage: Stage) -> Manifest:
        return read_manifest(self._store, self.results[stage].manifest)[0]

    def table(self, stage: Stage, schema: pa.Schema, below: str = "") -> pa.Table:
        """Return the rows of a stage, of all parts whose path begins with `below`."""
        manifest = self.manifest(stage)
        parts = [part for part in manifest.parts if part.path.startswith(below)]
        of_parts = manifest.model_copy(update={"parts": parts})
        uri = self.results[stage].manifest
        return pa.concat_tables(read_tables(self._store, uri, of_parts, schema))

    def page(self) -> str:
        run = "default/demo-00000000"
        records = read_records(self._store, join(self.spec.storage.uri, run))
        return render(build_report(records, RunInfo(run)))


@pytest.fixture(scope="module")
def generation(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Generation:
    """All stages of generation 1, over labeled dialogues and others."""
    folder = tmp_path_factory.mktemp("run")
    spec = EvolutionSpec.model_validate(
        {
            "model": {"uri": policy.as_uri(), "prompts": "compact-v1", "maxPromptTokens": 128},
            "dataset": {
                "labels": list(MELD),
                "context": {"past": 0},
                "sources": [
                    {**write(folder / "play.jsonl", dialogues(12, seed=2)), "use": "SelfPlay"},
                    {**write(folder / "labeled.jsonl", dialogues(6, seed=3)), "use": "Labeled"},
                    {**write(folder / "dev.jsonl", dialogues(20, seed=4)), "use": "Evaluation"},
                    {
                        **write(folder / "one.jsonl", dialogues(8, seed=5, several=False)),
                        "use": "Evaluation",
                    },
                ],
                "labelPrior": dict.fromkeys(MELD, 1 / 7),
            },
            "storage": {"uri": f"file://{folder}/store"},
            "selfPlay": {
                "engine": "Transformers",
                "groupSize": 4,
                "targetsPerDialogue": 4,
                "temperature": 0.7,
                "maxTokens": {"recognizer": 8, "responder": 12},
            },
            "reward": {"judge": {"samples": 2, "maxTokens": 1}, "minWords": 1},
            "flywheel": {
                "minReward": -2.0,
                "consistency": {"min": 0.0, "max": 1.0},
                "useLabelPrior": True,
                "maxShare": 0.4,
                "deduplicate": {"near": False},
            },
            "training": {
                "batchSize": 8,
                "microBatchSize": 4,
                "imitation": 0.5,
                "maxSteps": 12,
                "precision": "Float32",
                "gradientCheckpointing": False,
                "deepspeed": {"zeroStage": 0},
            },
            "resources": {"gpusPerNode": 0},
            "evaluation": {"bootstrap": 100},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENV_WORK, str(folder / "work"))
        patch.delenv(ENV_SHARD, raising=False)
        return Generation(spec, run_stages(spec))


def run_stages(spec: EvolutionSpec) -> dict[Stage, StageResult]:
    """Run the evaluation of generation 0 and the stages of generation 1 that make its scores."""
    results: dict[Stage, StageResult] = {}
    policy, parents = spec.model.uri, {}
    stages = [(1, stage) for stage in stages_of(1) if stage is not Stage.PUBLISH]
    for number, stage in [(0, Stage.EVALUATE), *stages]:
        (program,) = (p for p in PROGRAMS if p.stage is stage)
        config = StageConfig(
            stage=stage,
            run="default/demo-00000000",
            generation=number,
            seed=number,
            spec=spec,
            policy_uri=policy,
            judge_uri=spec.model.uri,
            output=f"{spec.storage.uri}/default/demo-00000000/generations/00{number}/{stage.slug}",
            parents=parents,
        )
        result = program.run(config)
        assert isinstance(result, StageResult)
        results[stage] = result
        policy = result.model_uri or policy
        parents = {stage.slug: result.manifest} if number else {}
    return results


def binarized(sets: list[list[str]]) -> NDArray[np.int64]:
    return np.asarray(MultiLabelBinarizer(classes=list(MELD)).fit_transform(sets))


def test_the_figures_are_those_of_scikit_learn(generation: Generation) -> None:
    scores: list[SourceScore] = generation.results[Stage.EVALUATE].scores
    assert [score.source for score in scores] == ["dev", "one"]
    score = scores[0]
    table = generation.table(Stage.EVALUATE, PREDICTIONS, "predictions/dev/")
    gold = binarized(table["gold"].to_pylist())
    predicted = binarized(table["predicted"].to_pylist())
    assert {len(names) for names in table["gold"].to_pylist()} == {1, 2}
    assert 2 in {len(names) for names in table["named"].to_pylist()}
    for figure, average in (
        (score.weighted_f1, "weighted"),
        (score.micro_f1, "micro"),
        (score.macro_f1, "macro"),
        (score.samples_f1, "samples"),
    ):
        expected = f1_score(gold, predicted, average=average, zero_division=0)
        assert figure == pytest.approx(expected, abs=1e-6), average
    assert score.f1_by_label == pytest.approx(
        f1_score(gold, predicted, average=None, zero_division=0), abs=1e-6
    )
    jaccard = jaccard_score(gold, predicted, average="samples", zero_division=0)
    assert score.jaccard == pytest.approx(jaccard, abs=1e-6)
    assert score.accuracy == pytest.approx(accuracy_score(gold, predicted), abs=1e-6)
    strict = f1_score(
        gold, binarized(table["named"].to_pylist()), average="weighted", zero_division=0
    )
    assert score.strict_weighted_f1 == pytest.approx(strict, abs=1e-6)
    assert score.labels_per_answer == pytest.approx(predicted.sum() / len(predicted), abs=1e-6)
    assert score.weighted_f1_low is not None and score.weighted_f1_high is not None
    assert score.weighted_f1_low <= score.weighted_f1 <= score.weighted_f1_high
    assert 0 < score.accuracy < score.weighted_f1 < 1  # the figures differ
    report = generation.manifest(Stage.EVALUATE).report["sources"]["dev"]
    assert report["support"] == gold.sum(axis=0).tolist()
    assert report["correct"] == (gold & predicted).sum(axis=0).tolist()
    assert report["predicted"] == predicted.sum(axis=0).tolist()
    assert "confusion" not in report


def test_a_source_with_one_label_keeps_the_figures_of_one_label(generation: Generation) -> None:
    score = generation.results[Stage.EVALUATE].scores[1]
    assert (score.micro_f1, score.samples_f1, score.jaccard, score.labels_per_answer) == (None,) * 4
    table = generation.table(Stage.EVALUATE, PREDICTIONS, "predictions/one/")
    gold = [names[0] for names in table["gold"].to_pylist()]
    predicted = [names[0] for names in table["predicted"].to_pylist()]
    expected = f1_score(gold, predicted, average="weighted", labels=list(MELD), zero_division=0)
    assert score.weighted_f1 == pytest.approx(expected, abs=1e-6)
    assert "confusion" in generation.manifest(Stage.EVALUATE).report["sources"]["one"]


def test_sets_reach_training(generation: Generation) -> None:
    candidates = generation.table(Stage.SELF_PLAY, CANDIDATES).to_pylist()
    golds = {tuple(row["gold"]) for row in candidates if row["gold"]}
    assert golds & set(PAIRS)
    scored = generation.table(Stage.SCORE, SCORED).to_pylist()
    voted = Counter(
        len(row["consensus"])
        for row in scored
        if row["member"] == 0 and row["role"] == "Recognizer" and not row["gold"]
    )
    assert voted[1] > 0
    assert voted[2] > 0  # although `reward.judge.maxTokens` would end a reading after one label
    kept = generation.table(Stage.FLYWHEEL, SCORED).to_pylist()
    firsts = [row["consensus"] for row in kept if row["member"] == 0]
    assert any(len(names) == 2 for names in firsts)
    labels = generation.manifest(Stage.FLYWHEEL).report["labels"]
    assert labels == Counter(name for names in firsts for name in names)
    assert generation.results[Stage.TRAIN].metrics["imitation"] > 0


def test_the_report_shows_the_figures_of_sets(generation: Generation) -> None:
    page = generation.page()
    assert "Sets of labels" in page
    score = generation.results[Stage.EVALUATE].scores[0]
    for figure in (score.micro_f1, score.samples_f1, score.jaccard, score.accuracy):
        assert f"{figure:.4f}" in page
    gold = generation.table(Stage.EVALUATE, PREDICTIONS, "predictions/dev/")["gold"].to_pylist()
    mean = sum(map(len, gold)) / len(gold)
    assert f"gold labels of an utterance is {mean:.2f} in dev" in page


def test_with_never_the_first_label_counts(
    generation: Generation,
    make_config: Callable[..., StageConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    update: dict[str, Any] = generation.spec.to_json()
    update["evaluation"]["multiLabel"] = "Never"
    update["storage"]["uri"] = f"file://{tmp_path}/store"
    spec = EvolutionSpec.model_validate(update)
    config = make_config(Stage.EVALUATE, generation=0, spec=spec)
    (program,) = (p for p in PROGRAMS if p.stage is Stage.EVALUATE)
    result = program.run(config)
    assert isinstance(result, StageResult)
    never = Generation(spec, {Stage.EVALUATE: result})
    table = never.table(Stage.EVALUATE, PREDICTIONS, "predictions/dev/")
    gold = [names[0] for names in table["gold"].to_pylist()]
    predicted = [names[0] for names in table["predicted"].to_pylist()]
    expected = f1_score(gold, predicted, average="weighted", labels=list(MELD), zero_division=0)
    assert result.scores[0].weighted_f1 == pytest.approx(expected, abs=1e-6)
    assert result.scores[0].jaccard is None
