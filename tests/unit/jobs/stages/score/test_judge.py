"""What the judge is asked to read, and how its readings are arranged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.jobs.stages.score.candidates import recognizer, responder, table
from transformers import PreTrainedTokenizerBase

from selfemo_api.seeds import derive_seed
from selfemo_api.spec import EvolutionSpec
from selfemo_jobs.engines import open_engine
from selfemo_jobs.engines.interface import Completion, Sampling, TextEngine
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_model
from selfemo_jobs.rewards.label_sets import count_votes
from selfemo_jobs.stages.score.judge import (
    EXACT_READINGS,
    JudgeReader,
    exact_shares,
    label_beginnings,
    reading_tokens,
)

JOY, ANGER = ["joy"], ["anger"]
TURNS = [{"speaker": f"S{i}", "text": f"turn number {i}."} for i in range(4)]
PART = table(
    recognizer("u1", [JOY] * 4, prompt_ids=[9, 8, 7, 6]),
    responder("x1", JOY, ["What a day", " \n", "What a day", "Off with you"], context=TURNS),
)


class RecordingEngine:
    """A real engine that records its requests."""

    def __init__(self, engine: TextEngine) -> None:
        self._engine = engine
        self.prompts: list[list[list[int]]] = []
        self.sampling: list[Sampling] = []

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._engine.tokenizer

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Completion]]:
        self.prompts.append([list(p) for p in prompts])
        self.sampling.append(sampling)
        return self._engine.generate(prompts, sampling)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture
def spec(make_spec: Callable[..., EvolutionSpec]) -> EvolutionSpec:
    return make_spec(
        reward={"judge": {"samples": 3}},
        selfPlay={"temperature": 0.7, "topP": 0.9},
        dataset={"context": {"past": 2}},
    )


@pytest.fixture
def engine(tiny_model: Path, spec: EvolutionSpec) -> Iterator[RecordingEngine]:
    real = open_engine(spec.self_play.engine, tiny_model, engine_args={}, max_model_len=512, seed=0)
    yield RecordingEngine(real)
    real.close()


def test_the_judge_reads_targets_and_distinct_responses(
    engine: RecordingEngine, spec: EvolutionSpec
) -> None:
    readings = JudgeReader(engine, spec).read(PART, 11, "part")
    (prompts,) = engine.prompts
    assert prompts[0] == [9, 8, 7, 6]  # the group's own prompt, not one that is built again
    texts = [engine.tokenizer.decode(ids) for ids in prompts[1:]]
    assert len(texts) == 2  # one response occurs twice, and one is empty
    assert "Bob: What a day" in texts[0]
    assert "Bob: Off with you" in texts[1]
    assert "turn number 2." in texts[0]
    assert "turn number 1." not in texts[0]  # the recognizer sees two turns back
    (sampling,) = engine.sampling
    assert (sampling.n, sampling.temperature, sampling.top_p) == (3, 0.7, 0.9)
    assert (sampling.max_tokens, sampling.seed) == (6, 11)
    assert readings.targets is not None
    assert readings.targets.shape == (1, 3)
    assert readings.responses.shape == (1, 4, 3)
    assert np.array_equal(readings.responses[0, 0], readings.responses[0, 2])
    assert not readings.responses[0, 1].any()


def test_a_target_is_read_in_each_view(
    engine: RecordingEngine, make_spec: Callable[..., EvolutionSpec]
) -> None:
    views = make_spec(reward={"judge": {"samples": 3, "views": [{"past": 0}, {"past": 1}]}})
    part = table(
        recognizer("u1", [JOY] * 4, views=[[4, 5], [6, 7, 8]]),
        recognizer("u2", [JOY] * 4, views=[[4, 5], [9]]),
    )
    readings = JudgeReader(engine, views).read(part, 11, "part")
    assert engine.prompts == [[[4, 5], [6, 7, 8], [9]]]  # equal prompts are read once
    assert readings.targets is not None
    assert readings.targets.shape == (2, 6)
    assert np.array_equal(readings.targets[0, :3], readings.targets[1, :3])
    with pytest.raises(BadInput, match=r"part: row 1: `views` has 0 prompts .* has 2"):
        JudgeReader(engine, views).read(PART, 11, "part")


def test_a_reading_may_have_a_lower_token_limit_than_an_answer(
    engine: RecordingEngine, make_spec: Callable[..., EvolutionSpec]
) -> None:
    self_play = {"maxTokens": {"recognizer": 8, "responder": 24}}
    JudgeReader(engine, make_spec(selfPlay=self_play)).read(PART, 1, "part")
    short = make_spec(selfPlay=self_play, reward={"judge": {"maxTokens": 1}})
    JudgeReader(engine, short).read(PART, 1, "part")
    by_label = make_spec(selfPlay=self_play, reward={"judge": {"maxTokens": 0}})
    JudgeReader(engine, by_label).read(PART, 1, "part")
    longest = max(
        len(engine.tokenizer(f" {label}")["input_ids"]) for label in by_label.dataset.labels
    )
    assert [sampling.max_tokens for sampling in engine.sampling] == [8, 1, min(8, longest)]


def test_a_reading_is_not_cut_after_one_label_where_utterances_have_several(
    engine: RecordingEngine, make_spec: Callable[..., EvolutionSpec]
) -> None:
    tokens = {"maxTokens": {"recognizer": 8, "responder": 24}}
    short = make_spec(selfPlay=tokens, reward={"judge": {"maxTokens": 1}})
    long = make_spec(selfPlay=tokens, reward={"judge": {"maxTokens": 12}})
    limits = [
        reading_tokens(spec, engine.tokenizer, label_sets=several)
        for spec in (short, long)
        for several in (False, True)
    ]
    assert limits == [1, 8, 12, 12]
    JudgeReader(engine, short, label_sets=True).read(PART, 1, "part")
    assert engine.sampling[0].max_tokens == 8


def test_without_context_and_without_a_vote_only_responses_are_read(
    engine: RecordingEngine, spec: EvolutionSpec, make_spec: Callable[..., EvolutionSpec]
) -> None:
    alone = make_spec(dataset={"context": {"past": 0}}, reward={"judge": {"weight": 0.0}})
    readings = JudgeReader(engine, alone).read(PART, 11, "part")
    assert readings.targets is None
    assert len(engine.prompts[0]) == 2  # responses only: the judge has no vote
    assert "turn number" not in engine.tokenizer.decode(engine.prompts[0][0])


def test_an_empty_part_makes_no_request(engine: RecordingEngine, spec: EvolutionSpec) -> None:
    readings = JudgeReader(engine, spec).read(table(), 11, "part")
    assert engine.prompts == []
    assert readings.responses.shape == (0, 4, 3)


def test_each_part_has_a_seed_of_its_own() -> None:
    seeds = {derive_seed(s, f"part-{i:05d}.parquet") for s in range(3) for i in range(50)}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("answers", "beginnings"),
    [
        ([(1, 9), (2, 3, 9), (2, 4, 9)], [(1,), (2, 3), (2, 4)]),
        ([(1, 9), (1, 5, 9)], [(1, 9), (1, 5)]),  # one label is the beginning of another one
        ([(1, 9), (2, 9)], [(1,), (2,)]),
    ],
)
def test_each_label_has_the_tokens_that_tell_it_from_the_others(
    answers: list[tuple[int, ...]],
    beginnings: list[tuple[int, ...]],
    spec: EvolutionSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts: Any = SimpleNamespace(label_answers=lambda _tokenizer, _labels: answers)
    monkeypatch.setattr("selfemo_jobs.stages.score.judge.prompt_set_of", lambda _model: prompts)
    tokenizer: Any = None
    assert label_beginnings(tokenizer, spec) == beginnings


def test_exact_readings_have_the_probabilities_as_shares(
    tiny_model: Path, make_spec: Callable[..., EvolutionSpec]
) -> None:
    exact = make_spec(reward={"judge": {"samples": 0, "views": [{"past": 0}, {"past": 1}]}})
    real = open_engine(
        exact.self_play.engine, tiny_model, engine_args={}, max_model_len=512, seed=0
    )
    labels = exact.dataset.labels
    prompts = [[9, 8, 7, 6], [5, 4]]
    shares = exact_shares(real, exact, prompts)
    beginnings = label_beginnings(real.tokenizer, exact)
    assert len({*beginnings}) == len(labels)
    # a plain pass through the model, without the engine
    model = load_model(tiny_model, torch.float32)
    for prompt, row in zip(prompts, shares, strict=True):
        logprobs = []
        for beginning in beginnings:
            ids = torch.tensor([[*prompt, *beginning]])
            predicted = model(ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
            logprobs.append(predicted[range(len(beginning)), list(beginning)].sum())
        expected = torch.stack(logprobs).softmax(0).detach().numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-4)
    part = table(
        recognizer("u1", [JOY] * 4, views=prompts),
        responder("x1", JOY, ["What a day", " \n", "What a day", "Off"], context=TURNS),
    )
    readings = JudgeReader(real, exact).read(part, 1, "part")
    assert readings.targets is not None and readings.targets.shape == (1, EXACT_READINGS)
    counted = count_votes(readings.targets, len(labels))[0] / EXACT_READINGS
    np.testing.assert_allclose(counted, shares.mean(axis=0), atol=1 / EXACT_READINGS)
    assert readings.responses.shape == (1, 4, EXACT_READINGS)
    assert readings.responses[0, 0].all() and not readings.responses[0, 1].any()
    assert np.array_equal(readings.responses[0, 0], readings.responses[0, 2])
    empty = JudgeReader(real, exact).read(part.slice(0, 0), 1, "part")
    assert empty.responses.shape == (0, 4, EXACT_READINGS)
    real.close()


def test_exact_shares_need_single_labels(
    engine: RecordingEngine, make_spec: Callable[..., EvolutionSpec]
) -> None:
    with pytest.raises(BadInput, match=r"judge.samples: 0` requires one label"):
        JudgeReader(engine, make_spec(reward={"judge": {"samples": 0}}), label_sets=True)


class ScoringEngine(RecordingEngine):
    """A real engine whose scores may be replaced."""

    scores: list[list[float]] | None = None

    def score(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        return self.scores or self._engine.score(prompts, completions)


@pytest.fixture
def exact(engine: RecordingEngine) -> ScoringEngine:
    return ScoringEngine(engine._engine)


@pytest.mark.parametrize("samples", [0, 3])
def test_a_part_without_anything_to_read(
    samples: int, exact: ScoringEngine, make_spec: Callable[..., EvolutionSpec]
) -> None:
    empty = table(responder("x1", JOY, ["", " ", "", "\n"], context=TURNS))
    spec = make_spec(reward={"judge": {"samples": samples, "weight": 0}})
    readings = JudgeReader(exact, spec).read(empty, 11, "part")
    assert readings.responses.shape == (1, 4, samples or EXACT_READINGS)
    assert not readings.responses.any()


@pytest.mark.parametrize("samples", [0, 3])
def test_a_response_that_fits_no_prompt_is_not_read(
    samples: int, exact: ScoringEngine, make_spec: Callable[..., EvolutionSpec]
) -> None:
    part = table(responder("x1", JOY, ["Fine", "so " * 500, "Fine", "Off"], context=TURNS))
    spec = make_spec(
        reward={"judge": {"samples": samples, "weight": 0}}, model={"maxPromptTokens": 200}
    )
    readings = JudgeReader(exact, spec).read(part, 11, "part")
    assert not readings.responses[0, 1].any()
    if not samples:
        assert readings.responses[0, 0].all()


def test_probabilities_that_are_not_finite_are_an_error(
    exact: ScoringEngine, make_spec: Callable[..., EvolutionSpec]
) -> None:
    exact.scores = [[float("nan")] * 7]
    with pytest.raises(BadInput, match="probabilities of the labels are not finite"):
        exact_shares(exact, make_spec(), [[1, 2]])
