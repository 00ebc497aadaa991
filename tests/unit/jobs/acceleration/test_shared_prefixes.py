"""Prompts whose common beginnings are read once continue as if each had been read alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tests.support.scored_models import make_sharp

from selfemo_jobs.acceleration import shared_prefixes
from selfemo_jobs.acceleration.prefill import Prefill, next_logits, prefill
from selfemo_jobs.acceleration.shared_prefixes import prefill_shared, shared_rows, shared_share
from selfemo_jobs.engines import transformers_engine
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.engines.transformers_args import TransformersArgs
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.models.fetch import load_model

HEAD = [9, 8, 7, 6, 5]
PROMPTS = sorted(
    [
        *([*HEAD, token, 3] for token in (11, 12, 13)),
        [*HEAD, 11, 3, 4, 5],  # continues another prompt
        HEAD,  # is the beginning of others
        [5, 6],
        [5, 7, *range(20, 40)],
        [30] * 4,
        [30] * 4,  # occurs twice
    ]
)


@pytest.fixture(scope="module")
def sharp(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sharp"
    make_sharp(folder, tiny_model)
    return folder


@pytest.mark.parametrize("most", [1, 12, 1000])
def test_what_is_shared_goes_on_as_what_is_read_alone(
    sharp: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    model = load_model(sharp, torch.float64)
    monkeypatch.setattr(shared_prefixes, "CPU_TOKENS", most)
    tokens = torch.tensor([[3 + row] for row in range(len(PROMPTS))])

    def after(state: Prefill) -> torch.Tensor:
        mask = torch.cat([state.mask, torch.ones_like(tokens)], dim=1)
        return next_logits(model, tokens, mask, state.position + 1, state.cache)

    with torch.inference_mode():
        alone, shared = prefill(model, PROMPTS, 0), prefill_shared(model, PROMPTS)
        brief = prefill_shared(model, PROMPTS, keep_cache=False)
        torch.testing.assert_close(shared.logits, alone.logits)
        torch.testing.assert_close(brief.logits, alone.logits)
        assert torch.equal(shared.mask, alone.mask)
        assert torch.equal(shared.position, alone.position)
        torch.testing.assert_close(after(shared), after(alone))
    assert alone.logits.std(dim=0).mean() > 0.1, "the prompts differ, so a wrong mask is noticed"


def test_rows_hold_each_beginning_once_up_to_their_length() -> None:
    (row,) = shared_rows(PROMPTS, 1000)
    assert len(row.tokens) == len({tuple(p[:n]) for p in PROMPTS for n in range(1, len(p) + 1)})
    for prompt, columns in zip(PROMPTS, row.columns, strict=True):
        assert [row.tokens[c] for c in columns] == prompt
        assert [row.positions[c] for c in columns] == list(range(len(prompt)))
    several = list(shared_rows(PROMPTS, 12))
    assert max(len(r.tokens) for r in several if len(r.columns) > 1) <= 12
    assert sum(len(r.columns) for r in several) == len(PROMPTS)


def counted(
    engine: TransformersEngine, prompts: Sequence[Sequence[int]], sampling: Sampling
) -> tuple[list[tuple[int, ...]], int]:
    """Return the tokens of all completions, and how many tokens the model read."""
    tokens = 0

    def count(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        nonlocal tokens
        tokens += inputs[0].shape[0] * inputs[0].shape[1]

    embedding = engine.model.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(count)
    groups = engine.generate(prompts, sampling)
    hook.remove()
    return [c.token_ids for group in groups for c in group], tokens


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0, max_tokens=6),
        Sampling(n=5, max_tokens=6, seed=3),
        Sampling(n=5, max_tokens=1, seed=4),
    ],
)
def test_the_engine_reads_a_shared_beginning_once_and_draws_the_same(
    sharp: Path, monkeypatch: pytest.MonkeyPatch, sampling: Sampling
) -> None:
    engine = TransformersEngine(sharp, TransformersArgs(batch_size=40), max_model_len=256)
    prompts = [[*range(40, 80), 3 + i % 5, 100 + i] for i in range(8)]
    shared, tokens = counted(engine, prompts, sampling)
    monkeypatch.setattr(transformers_engine, "LEAST_SHARE", 1.1)  # never
    plain, more = counted(engine, prompts, sampling)
    assert shared == plain
    assert more - tokens == 7 * 40 + 3, "the header and the first token after it are read once"
    engine.close()


def test_prompts_with_little_in_common_are_read_as_before(sharp: Path) -> None:
    engine = TransformersEngine(sharp, max_model_len=256)
    prompts = [[3 + i, *range(20, 40)] for i in range(4)]
    assert shared_share(prompts) == 0.0
    reads = [read for _, read in engine._batches(prompts, range(4), 2)]
    assert reads == [engine.prefill] * 2
    engine.close()
