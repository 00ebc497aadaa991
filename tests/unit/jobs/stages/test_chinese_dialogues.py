"""SelfPlay, Score and Flywheel over a hundred Chinese dialogues.

The stages, their prompts and tokens are real. The test model cannot write Chinese, so a stand-in
for the engine invents the completions: sentences of everyday Chinese, and labels.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.support.chinese_dialogues import LABELS, dialogues, sentence, write_dialogues

from selfemo_api.collapse import crossed_indicator
from selfemo_api.contract import ENV_SHARD, ENV_WORK, StageConfig
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.rewards.penalties import split_words
from selfemo_jobs.runtime.manifest import read_manifest
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.schemas import CANDIDATES, SCORED
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.flywheel import stage as flywheel_stage
from selfemo_jobs.stages.score import stage as score_stage
from selfemo_jobs.stages.selfplay import stage as selfplay_stage
from selfemo_jobs.store import open_store

#: Writes a completion: of the prompt's text, and of a generator of the draws.
Writer = Callable[[str, random.Random], str]
#: The emotion that a sentence of the invented dialogues expresses.
EMOTION_OF = {turn["text"]: turn["labels"][0] for d in dialogues() for turn in d["turns"]}


@dataclass
class InventingEngine:
    """Completes prompts with invented Chinese."""

    tokenizer: Any
    respond: Writer
    prompts: list[str] = field(default_factory=list)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]
    ) -> list[list[Completion]]:
        each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
        return [
            self._complete(self.tokenizer.decode(prompt), settings)
            for prompt, settings in zip(prompts, each, strict=True)
        ]

    def _complete(self, prompt: str, sampling: Sampling) -> list[Completion]:
        self.prompts.append(prompt)
        rng = random.Random(f"{sampling.seed} {prompt}")
        write = _recognize if prompt.endswith("情绪：") else self.respond
        texts = [write(prompt, rng) for _ in range(sampling.n)]
        return [self._completion(text) for text in texts]

    def _completion(self, text: str) -> Completion:
        ids = tuple(self.tokenizer(f"{text}\n")["input_ids"])
        return Completion(ids, (-1.0,) * len(ids), text, finished=True)

    def close(self) -> None:
        """Nothing is loaded."""


def _recognize(prompt: str, rng: random.Random) -> str:
    """Return an emotion: mostly that of the frame of the last sentence."""
    target = prompt.splitlines()[-2].partition("：")[2]
    guess = EMOTION_OF.get(target) or LABELS[sum(map(ord, target)) % len(LABELS)]
    return guess if rng.random() < 0.7 else "、".join(rng.sample(LABELS, rng.randint(1, 2)))


def _fluent(prompt: str, rng: random.Random) -> str:
    intended = prompt.splitlines()[-1].removeprefix("（").partition("）")[0]
    return sentence(intended, rng)


def _stuck(_prompt: str, _rng: random.Random) -> str:
    return "我也不知道该说什么才好了"


@pytest.fixture
def spec(
    make_spec: Callable[..., EvolutionSpec],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> EvolutionSpec:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.delenv(ENV_SHARD, raising=False)
    train = write_dialogues(tmp_path / "train.jsonl").as_uri()
    dev = write_dialogues(tmp_path / "dev.jsonl", 20, seed=5).as_uri()
    return make_spec(
        model={
            "uri": tiny_model.as_uri(),
            "prompts": "compact-zh-v1",
            "maxPromptTokens": 2048,
        },
        dataset={
            "labels": list(LABELS),
            "sources": [
                {"name": "train", "use": "SelfPlay", "uri": train, "format": "JSONL"},
                {"name": "dev", "use": "Evaluation", "uri": dev, "format": "JSONL"},
            ],
            "context": {"past": 3},
        },
        selfPlay={"dialogues": 100, "targetsPerDialogue": 2, "groupSize": 4},
        flywheel={"minReward": -2.0, "consistency": {"min": 0.0, "max": 1.0}},
    )


@dataclass
class Run:
    """The three stages of one generation."""

    spec: EvolutionSpec
    make_config: Callable[..., StageConfig]
    results: dict[Stage, StageResult] = field(default_factory=dict)

    def run(self, program: StageProgram) -> StageResult:
        parents = {stage.slug: result.manifest for stage, result in self.results.items()}
        result = program.run(self.make_config(program.stage, spec=self.spec, parents=parents))
        assert isinstance(result, StageResult)
        self.results[program.stage] = result
        return result

    def rows(self, stage: Stage) -> pa.Table:
        store = open_store(self.spec.storage)
        uri = self.results[stage].manifest
        schema = CANDIDATES if stage is Stage.SELF_PLAY else SCORED
        return pa.concat_tables(read_tables(store, uri, read_manifest(store, uri)[0], schema))

    def report(self, stage: Stage) -> dict[str, Any]:
        store = open_store(self.spec.storage)
        return read_manifest(store, self.results[stage].manifest)[0].report


@pytest.fixture
def play(
    spec: EvolutionSpec,
    make_config: Callable[..., StageConfig],
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Writer], tuple[Run, InventingEngine]]:
    def run(respond: Writer) -> tuple[Run, InventingEngine]:
        engine = InventingEngine(load_tokenizer(tiny_model), respond)
        for stage in (selfplay_stage, score_stage):
            monkeypatch.setattr(stage, "open_engine", lambda *_, **__: engine)
            monkeypatch.setattr(stage, _fetch_name(stage), lambda _context: tiny_model)
        stages = Run(spec, make_config)
        for program in (selfplay_stage.PROGRAM, score_stage.PROGRAM, flywheel_stage.PROGRAM):
            stages.run(program)
        return stages, engine

    return run


def _fetch_name(stage: object) -> str:
    return "fetch_policy" if stage is selfplay_stage else "fetch_judge"


def test_fluent_chinese_is_kept_and_does_not_collapse(
    play: Callable[[Writer], tuple[Run, InventingEngine]],
) -> None:
    run, engine = play(_fluent)
    assert any(p.endswith("\n情绪：") for p in engine.prompts)
    assert any("（开心）小红：" in p for p in engine.prompts)
    bounds = run.spec.stopping.collapse
    for result in run.results.values():
        assert crossed_indicator(result, None, bounds) is None
    # 800 responses from 25 frames; the same one 800 times would have 0.001
    assert run.results[Stage.SELF_PLAY].metrics["diversity"] > 5 * bounds.min_diversity
    assert run.results[Stage.SELF_PLAY].metrics["responderWellFormed"] == 1.0
    faults = run.report(Stage.SCORE)["faults"]
    assert faults["badLength"] == faults["namesEmotion"] == 0
    assert faults["repeatsContext"] < 0.1 * 800  # 25 frames are few: some are in the context
    kept = run.results[Stage.FLYWHEEL].metrics
    assert kept["keptResponder"] > 100 and kept["keptRecognizer"] > 100, kept
    lengths = [
        len(split_words(row["completion"]))
        for row in run.rows(Stage.FLYWHEEL).to_pylist()
        if row["role"] == Role.RESPONDER
    ]
    assert min(lengths) >= 8 and max(lengths) <= 40


def test_one_response_to_everything_collapses(
    play: Callable[[Writer], tuple[Run, InventingEngine]],
) -> None:
    run, _ = play(_stuck)
    message = crossed_indicator(run.results[Stage.SELF_PLAY], None, run.spec.stopping.collapse)
    assert message is not None and message.startswith("response diversity is 0.0")
    funnel = {line["filter"]: line for line in run.report(Stage.FLYWHEEL)["funnel"]}
    assert run.results[Stage.FLYWHEEL].metrics["keptResponder"] == 0, funnel
