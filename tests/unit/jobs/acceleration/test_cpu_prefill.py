"""Prompts that are read a few at a time continue as if they were read together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from selfemo_jobs.acceleration import cpu_prefill
from selfemo_jobs.acceleration.cpu_prefill import prefill_in_parts, split_prompts
from selfemo_jobs.acceleration.prefill import prefill

PROMPTS = [[5], [6, 7, 8], [9] * 4, [3, 4, 5, 6, 7, 8, 9], [8] * 30]


def test_parts_are_neighbors_within_the_limit() -> None:
    assert [len(part) for part in split_prompts(PROMPTS, 8)] == [2, 1, 1, 1]
    assert [len(part) for part in split_prompts(PROMPTS, 1000)] == [5]
    assert [p for part in split_prompts(PROMPTS, 12) for p in part] == PROMPTS


def test_what_is_read_in_parts_goes_on_as_what_is_read_together(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    monkeypatch.setattr(cpu_prefill, "CPU_TOKENS", 8)
    states = []
    for read in (prefill, prefill_in_parts):
        with torch.inference_mode():
            state = read(model, PROMPTS, 0)
            mask = torch.cat([state.mask, torch.ones(5, 1, dtype=torch.long)], dim=1)
            after = model(
                input_ids=torch.tensor([[3], [4], [5], [6], [7]]),
                attention_mask=mask,
                position_ids=state.position + 1,
                past_key_values=state.cache,
            ).logits[:, -1]
        states.append((state.logits, state.mask, state.position, after))
    for together, in_parts in zip(*states, strict=True):
        torch.testing.assert_close(together, in_parts)
