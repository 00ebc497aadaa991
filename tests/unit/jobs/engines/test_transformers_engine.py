"""The Transformers engine, over the tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from selfemo_api.spec import Engine
from selfemo_jobs.acceleration import bf16_emulation
from selfemo_jobs.engines import open_engine
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.engines.sampling import processed_logprobs
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.errors import BadInput, StageError
from selfemo_jobs.models.end_tokens import end_tokens
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.prompts import load_prompt_set

TEXTS = ("Emotion:", "the a to and of you I it is in that was", "well", "oh no yes, joy joy joy")
SAMPLING = Sampling(n=3, temperature=0.8, top_p=0.9, max_tokens=9, seed=5)


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[TransformersEngine]:
    arguments = TransformersArgs(batch_size=6)
    engine = TransformersEngine(tiny_model, arguments, max_model_len=256)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def prompts(engine: TransformersEngine) -> list[list[int]]:
    return [engine.tokenizer(t)["input_ids"] for t in TEXTS]


def recomputed(
    engine: TransformersEngine,
    prompt: list[int],
    completion: Completion,
    sampling: Sampling = SAMPLING,
) -> list[float]:
    """Log-probabilities from one plain forward pass, without cache or padding."""
    ids = torch.tensor([prompt + list(completion.token_ids)])
    with torch.inference_mode():
        logits = engine.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    logprobs = processed_logprobs(logits, sampling.temperature, sampling.top_p)
    taken = logprobs.gather(-1, torch.tensor(completion.token_ids).unsqueeze(-1))
    return taken.squeeze(-1).tolist()


def test_bfloat16_reads_alike_with_and_without_emulation(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]]
) -> None:
    said = []
    for slow in (True, False):
        monkeypatch.setattr(bf16_emulation, "_slow", lambda slow=slow: slow)
        arguments = TransformersArgs(dtype="bfloat16")
        engine = TransformersEngine(tiny_model, arguments, max_model_len=256)
        assert isinstance(engine._precision, bf16_emulation.EmulatedBFloat16) is slow
        answers = engine.generate(prompts, Sampling(n=1, temperature=0.0, max_tokens=1, seed=0))
        said.append([group[0].token_ids for group in answers])
        engine.close()
    assert said[0] == said[1]  # the likeliest token: the rest differs by roundings


def test_logprobs_are_those_of_a_plain_forward_pass(
    engine: TransformersEngine, prompts: list[list[int]]
) -> None:
    groups = engine.generate(prompts, SAMPLING)
    assert [len(g) for g in groups] == [3] * len(prompts)
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            assert 1 <= len(completion.token_ids) <= 9
            expected = recomputed(engine, prompt, completion)
            assert completion.logprobs == pytest.approx(expected, abs=2e-4)


def test_the_same_call_gives_the_same_whatever_went_before(
    engine: TransformersEngine, prompts: list[list[int]]
) -> None:
    first = engine.generate(prompts, SAMPLING)
    engine.generate(prompts[:2], Sampling(n=2, max_tokens=3, seed=1))
    torch.manual_seed(99)
    assert engine.generate(prompts, SAMPLING) == first
    other = engine.generate(prompts, Sampling(n=3, temperature=0.8, max_tokens=9, seed=6))
    assert [c.token_ids for g in other for c in g] != [c.token_ids for g in first for c in g]
    assert len({c.token_ids for c in first[0]}) > 1, "members must differ"


def test_batching_does_not_change_what_is_drawn(
    engine: TransformersEngine, tiny_model: Path, prompts: list[list[int]]
) -> None:
    alone = TransformersEngine(tiny_model, TransformersArgs(batch_size=1), max_model_len=256)
    ids = [[c.token_ids for c in g] for g in alone.generate(prompts, SAMPLING)]
    assert ids == [[c.token_ids for c in g] for g in engine.generate(prompts, SAMPLING)]


def test_a_beginning_that_completions_share_is_read_once(
    engine: TransformersEngine, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = engine.model.forward

    def counted(*args: object, **kwargs: object) -> object:
        read.append(kwargs["input_ids"].shape[0])  # type: ignore[attr-defined]
        return plain(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", counted)
    hot = Sampling(n=6, temperature=3.0, max_tokens=5, seed=4)
    (group,) = engine.generate(prompts[:1], hot)
    beginnings = [
        {c.token_ids[:length] for c in group if len(c.token_ids) > length or length == 0}
        for length in range(5)
    ]
    assert read == [len(distinct) for distinct in beginnings if distinct]
    read.clear()
    engine.generate(prompts[:1], Sampling(n=6, temperature=0, max_tokens=5))
    assert set(read) == {1}


def test_greedy_is_the_librarys_greedy(
    engine: TransformersEngine, prompts: list[list[int]]
) -> None:
    groups = engine.generate(prompts, Sampling(temperature=0, max_tokens=7))
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        ids = torch.tensor([prompt])
        expected = engine.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=7
        )
        assert list(completion.token_ids) == expected[0, len(prompt) :].tolist()
        assert completion.logprobs == ()


def test_greedy_logprobs_are_the_models_own(
    engine: TransformersEngine, prompts: list[list[int]]
) -> None:
    greedy = Sampling(temperature=0, max_tokens=7)
    plain = engine.generate(prompts, greedy)
    groups = engine.generate(prompts, replace(greedy, greedy_logprobs=True))
    for prompt, (completion,), (other,) in zip(prompts, groups, plain, strict=True):
        assert completion == replace(other, logprobs=completion.logprobs)
        expected = recomputed(engine, prompt, completion, Sampling())
        assert completion.logprobs == pytest.approx(expected, abs=2e-4)


def test_a_stop_text_ends_and_is_left_out(
    engine: TransformersEngine, prompts: list[list[int]]
) -> None:
    long = Sampling(temperature=1.0, n=4, max_tokens=12, seed=2)
    free = engine.generate(prompts[:1], long)[0]
    stop = next(c.text[3] for c in free if len(c.text) > 6)
    stopped = engine.generate(prompts[:1], Sampling(**{**vars(long), "stop": (stop,)}))[0]
    assert any(len(s.token_ids) < len(f.token_ids) for s, f in zip(stopped, free, strict=True))
    for after, before in zip(stopped, free, strict=True):
        assert after.text == before.text.split(stop)[0]
        assert after.token_ids == before.token_ids[: len(after.token_ids)]
        assert after.finished == (stop in before.text or before.finished)


def test_the_end_token_ends_and_is_kept(
    engine: TransformersEngine, prompts: list[list[int]]
) -> None:
    end = engine.tokenizer.eos_token_id
    hot = Sampling(n=32, temperature=5.0, max_tokens=60, seed=3)
    ended = [c for g in engine.generate(prompts, hot) for c in g if c.finished]
    assert ended, "at this temperature the end token is drawn somewhere"
    for completion in ended:
        assert completion.token_ids[-1] == end
        assert end not in completion.token_ids[:-1]
        assert "<|im_end|>" not in completion.text


@pytest.fixture
def base_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model as Qwen3-Base: with a chat template, and an end token that ends no turn."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_model, folder)
    tokenizer = load_tokenizer(folder)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    settings = folder / "generation_config.json"
    settings.write_text(json.dumps({"eos_token_id": tokenizer.eos_token_id}))
    return folder


def test_the_token_that_ends_a_turn_ends_a_completion(
    base_model: Path, prompts: list[list[int]]
) -> None:
    engine = TransformersEngine(base_model, TransformersArgs(batch_size=6), max_model_len=256)
    end, turn_end = engine.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert engine.ends == {end, turn_end}
    chat = load_prompt_set("chat-v1")
    assert chat.encode_completion(engine.tokenizer, "joy")[-1] == turn_end
    hot = Sampling(n=32, temperature=5.0, max_tokens=60, seed=3)
    drawn = [c for group in engine.generate(prompts, hot) for c in group]
    ended = [c for c in drawn if turn_end in c.token_ids]
    assert ended, "at this temperature the token is drawn somewhere"
    assert all(c.finished and c.token_ids.index(turn_end) == len(c.token_ids) - 1 for c in ended)
    assert not any("<|im_end|>" in c.text for c in ended)


def test_an_end_that_is_not_marked_as_special_is_not_in_the_text(
    base_model: Path, prompts: list[list[int]]
) -> None:
    file = base_model / "tokenizer.json"
    document = json.loads(file.read_text())
    for token in document["added_tokens"]:
        token["special"] = token["content"] != "<|im_end|>"
    file.write_text(json.dumps(document))
    engine = TransformersEngine(base_model, TransformersArgs(batch_size=6), max_model_len=256)
    end = engine.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert engine.tokenizer.decode([end], skip_special_tokens=True) == "<|im_end|>"
    taught = load_prompt_set("chat-v1").encode_completion(engine.tokenizer, "joy")
    assert taught[-1] == end
    assert end in engine.ends
    hot = Sampling(n=32, temperature=5.0, max_tokens=60, seed=3)
    drawn = [c for group in engine.generate(prompts, hot) for c in group]
    ended = [c for c in drawn if end in c.token_ids]
    assert ended, "at this temperature the token is drawn somewhere"
    assert all(c.finished and c.token_ids.index(end) == len(c.token_ids) - 1 for c in ended)
    assert not any("<|im_end|>" in c.text for c in ended)


@pytest.mark.parametrize("template", [None, "{{ messages[-1].content }} joy", "{{ 1 + 'a' }}"])
def test_another_template_adds_no_end(base_model: Path, template: str | None) -> None:
    tokenizer = load_tokenizer(base_model)
    tokenizer.add_tokens([" joy"])  # an added token, which is a word and not a special token
    tokenizer.chat_template = template
    assert end_tokens(base_model, tokenizer) == {tokenizer.eos_token_id}


@pytest.mark.parametrize("configured", [7, [7], [7, 9], None])
def test_all_ends_of_the_generation_config_end_a_completion(
    base_model: Path, configured: int | list[int] | None
) -> None:
    """The file has one number or a list of them."""
    file = base_model / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": configured}))
    tokenizer = load_tokenizer(base_model)
    tokenizer.chat_template = None
    more = [configured] if isinstance(configured, int) else configured or []
    assert end_tokens(base_model, tokenizer) == {tokenizer.eos_token_id, *more}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"gpu_memory_utilization": 0.5}, "gpu_memory_utilization"),
        ({"batch_size": "many"}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"dtype": "int4"}, "dtype"),
        ({"device": "toaster"}, "device"),
    ],
)
def test_bad_arguments_are_named(tiny_model: Path, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        open_engine(
            Engine.TRANSFORMERS, tiny_model, engine_args=arguments, max_model_len=64, seed=0
        )


def test_prompts_may_each_have_their_own_sampling(
    engine: TransformersEngine, prompts: list[list[int]]
) -> None:
    one, two = SAMPLING, Sampling(n=2, max_tokens=4, seed=8)
    mixed = engine.generate(prompts, [one, two, one, two])
    expected = [engine.generate(prompts, sampling) for sampling in (one, two)]
    for index, group in enumerate(mixed):
        ids = [c.token_ids for c in expected[index % 2][index]]
        assert [c.token_ids for c in group] == ids
    with pytest.raises(ValueError, match="shorter"):
        engine.generate(prompts, [one])


@pytest.mark.parametrize("call", ["generate", "score", "generate_and_score"])
def test_a_lack_of_memory_names_the_batch_size(
    call: str, tiny_model: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersEngine(tiny_model, max_model_len=256)
    greedy, answers = Sampling(temperature=0, max_tokens=7), [[5, 6], [7]]
    arguments = {"generate": [greedy], "score": [answers], "generate_and_score": [greedy, answers]}

    def full(*_arguments: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(type(engine.model), "forward", full)
    with pytest.raises(StageError, match=r"GiB \(lower `selfPlay\.engineArgs\.batch_size`; in an"):
        getattr(engine, call)(prompts, *arguments[call])


def test_prompts_too_long_are_refused(engine: TransformersEngine) -> None:
    with pytest.raises(ValueError, match="max_model_len"):
        engine.generate([[5] * 250], SAMPLING)
    with pytest.raises(ValueError, match="empty"):
        engine.generate([[]], SAMPLING)
    assert engine.generate([], SAMPLING) == []
