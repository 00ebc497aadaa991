"""Scores of continuations: equal to one plain forward pass for each, whatever the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.scored_models import make_sharp, make_sliding, plain_logprob

from selfemo_jobs.acceleration import trie_scores
from selfemo_jobs.acceleration.prefill import Prefill
from selfemo_jobs.engines import transformers_engine
from selfemo_jobs.engines.completion_batch import CompletionBatch
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine

TEXTS = (
    *("Emotion:", "the a to and of you I it is in that was", "well", "oh no yes, joy joy joy"),
    *("no", "what do we say about joy and fear like that all the well", "oh", "I know you"),
)
LABELS = ("joy", "joyous", "joyous surprise", "fear", "Überraschung", "愤怒", "no")
GREEDY = Sampling(temperature=0.0, max_tokens=7, stop=("\n",))


@pytest.fixture(scope="module", params=["plain", "sliding"])
def engine(
    request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TransformersEngine]:
    folder = tmp_path_factory.mktemp("models") / request.param
    (make_sharp if request.param == "plain" else make_sliding)(folder, tiny_model)
    engine = TransformersEngine(folder, TransformersArgs(batch_size=3), max_model_len=256)
    yield engine
    engine.close()


@pytest.fixture
def prompts(engine: TransformersEngine) -> list[list[int]]:
    return [engine.tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture
def continuations(engine: TransformersEngine) -> list[list[int]]:
    """The tokens of each label's answer. One of them is the start of another."""
    answers = [engine.tokenizer(f" {label}\n")["input_ids"] for label in LABELS]
    assert [len(a) for a in answers[:2]] == [2, 4], "labels have one token, and several"
    assert answers[0][0] == answers[1][0]
    assert answers[1][:-1] == answers[2][: len(answers[1]) - 1], "beginnings are shared"
    return [*answers, answers[2][:2]]


def test_models_read_in_both_ways(engine: TransformersEngine, prompts: list[list[int]]) -> None:
    at_once = trie_scores._reads_at_once(engine.model, engine.prefill(prompts))
    assert at_once == (engine.model.config.model_type == "qwen3")


@pytest.mark.parametrize("tokens", [512, 20])
def test_scores_are_those_of_plain_forward_passes(
    engine: TransformersEngine,
    prompts: list[list[int]],
    continuations: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    tokens: int,
) -> None:
    monkeypatch.setattr(trie_scores, "MAX_TOKENS", tokens)  # a prompt at a time
    monkeypatch.setattr(trie_scores, "CPU_LOGITS", 100)  # the last piece is smaller
    scores = engine.score(prompts, continuations)
    distances = set()
    for prompt, logprobs in zip(prompts, scores, strict=True):
        expected = [plain_logprob(engine.model, prompt, c) for c in continuations]
        assert logprobs == pytest.approx(expected, abs=1e-4)
        assert [math.exp(x) for x in logprobs] == pytest.approx(
            [math.exp(x) for x in expected], abs=1e-6
        )
        distances.add(round(max(expected) - min(expected)))
    assert max(distances) > 5, "the labels differ, so a wrong node would be noticed"


def test_completions_with_scores_are_those_without(
    engine: TransformersEngine, prompts: list[list[int]], continuations: list[list[int]]
) -> None:
    expected = [group[0] for group in engine.generate(prompts, GREEDY)]
    pairs = engine.generate_and_score(prompts, GREEDY, continuations)
    assert [completion for completion, _ in pairs] == expected
    assert [scores for _, scores in pairs] == engine.score(prompts, continuations)


@pytest.mark.parametrize("distance", [None, 0.0, math.inf])
def test_completions_are_the_same_however_certain_they_must_be(
    engine: TransformersEngine,
    prompts: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
    distance: float | None,
) -> None:
    expected = [group[0] for group in engine.generate(prompts, GREEDY)]
    # some greedy completions are sequences of the trie, and others leave it
    known = [list(completion.token_ids) for completion in expected]
    certain = {} if distance is None else {torch.float32: distance}
    monkeypatch.setattr(transformers_engine, "CERTAIN", certain)
    for trie in ([*known[:3]], [*known], [known[0][:1], known[1][:2]]):
        pairs = engine.generate_and_score(prompts, GREEDY, trie)
        assert [completion for completion, _ in pairs] == expected


def test_a_prompt_is_read_once_and_known_answers_are_not_drawn(
    engine: TransformersEngine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [list(group[0].token_ids) for group in engine.generate(prompts, GREEDY)]
    assert len({tuple(c) for c in known}) > 1
    reads: list[int] = []
    draws: list[int] = []
    prefill, descend = engine._prefill, CompletionBatch._descend

    def counted_prefill(model: Any, batch: Any, pad: int) -> Prefill:
        reads.append(len(batch))
        return prefill(model, batch, pad)

    def counted_descend(batch: CompletionBatch, children: Any) -> None:
        draws.append(len(children))
        descend(batch, children)

    monkeypatch.setattr(engine, "_prefill", counted_prefill)
    monkeypatch.setattr(CompletionBatch, "_descend", counted_descend)
    engine.generate_and_score(prompts, GREEDY, known)
    assert sum(reads) == len(prompts)
    assert draws == []
    engine.generate_and_score(prompts, GREEDY, [[5, 6]])
    assert draws


def test_what_another_batch_could_draw_otherwise_is_drawn_as_without_scores(
    engine: TransformersEngine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    descend = CompletionBatch._descend

    def counted(batch: CompletionBatch, children: Any) -> None:
        widths.append(len(children))
        descend(batch, children)

    monkeypatch.setattr(CompletionBatch, "_descend", counted)
    longer = Sampling(temperature=0.0, max_tokens=3)
    engine.generate(prompts[:3], longer)
    drawn, widths[:] = [*widths], []
    assert drawn == [3, 3]
    for distance, expected in ((math.inf, [3, *drawn]), (0.0, drawn)):
        monkeypatch.setattr(transformers_engine, "CERTAIN", {torch.float32: distance})
        engine.generate_and_score(prompts[:3], longer, [[5]])
        assert widths == expected, "the first token is certain, and the second is checked"
        widths.clear()


def test_the_prefill_stays_as_it_is(
    engine: TransformersEngine, prompts: list[list[int]], continuations: list[list[int]]
) -> None:
    from selfemo_jobs.acceleration.token_trie import TokenTrie

    trie = TokenTrie.of(continuations)
    with torch.inference_mode():
        state = engine.prefill(prompts)
        first = trie_scores.score_trie(engine.model, state, trie)
        second = trie_scores.score_trie(engine.model, state, trie)
        part = trie_scores.score_trie(engine.model, state.select([4, 1]), trie)
    assert torch.equal(first.logprobs, second.logprobs)
    torch.testing.assert_close(part.logprobs, first.logprobs[[4, 1]], atol=1e-4, rtol=0)


def test_what_cannot_be_scored_is_refused(
    engine: TransformersEngine, prompts: list[list[int]]
) -> None:
    for bad in ([], [[]], [[5], []]):
        with pytest.raises(ValueError, match="at least one token"):
            engine.score(prompts, bad)
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        engine.score([[]], [[5]])
    with pytest.raises(ValueError, match="max_model_len 256"):
        engine.score([[5] * 250], [[5] * 7])
    for sampling in (Sampling(temperature=1.0), Sampling(temperature=0.0, n=2)):
        with pytest.raises(ValueError, match="greedy"):
            engine.generate_and_score(prompts, sampling, [[5]])
    with pytest.raises(ValueError, match="no log-probabilities of their own"):
        engine.generate_and_score(prompts, replace(GREEDY, greedy_logprobs=True), [[5]])
    assert engine.score([], [[5]]) == []
    assert engine.generate_and_score([], GREEDY, [[5]]) == []


def test_in_bfloat16_scores_are_close_and_completions_are_equal(
    tiny_model: Path, tmp_path: Path
) -> None:
    make_sharp(tmp_path / "sharp", tiny_model)
    arguments = TransformersArgs(batch_size=3, dtype="bfloat16")
    engine = TransformersEngine(tmp_path / "sharp", arguments, max_model_len=256)
    prompts = [engine.tokenizer(text)["input_ids"] for text in TEXTS]
    answers = [engine.tokenizer(f" {label}\n")["input_ids"] for label in LABELS]
    pairs = engine.generate_and_score(prompts, GREEDY, answers)
    assert [c for c, _ in pairs] == [group[0] for group in engine.generate(prompts, GREEDY)]
    for prompt, (_, logprobs) in zip(prompts, pairs, strict=True):
        expected = [plain_logprob(engine.model, prompt, answer) for answer in answers]
        assert logprobs == pytest.approx(expected, abs=1.0)
    engine.close()
