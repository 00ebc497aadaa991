"""Prompts read a few at a time go on as if read together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from selfemo_jobs.acceleration import prefill
from selfemo_jobs.acceleration.prefill import parts, read

PROMPTS = [[5], [6, 7, 8], [9] * 4, [3, 4, 5, 6, 7, 8, 9], [8] * 30]


def test_parts_are_neighbours_within_the_limit() -> None:
    assert [len(part) for part in parts(PROMPTS, 8)] == [2, 1, 1, 1]
    assert [len(part) for part in parts(PROMPTS, 1000)] == [5]
    assert [p for part in parts(PROMPTS, 12) for p in part] == PROMPTS


def test_what_is_read_in_parts_goes_on_as_what_is_read_together(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64)
    answers = []
    for most in (1000, 8):
        monkeypatch.setattr(prefill, "CPU_TOKENS", most)
        with torch.inference_mode():
            found = read(model, PROMPTS, 0)
            mask = torch.cat([found.mask, torch.ones(5, 1, dtype=torch.long)], dim=1)
            after = model(
                input_ids=torch.tensor([[3], [4], [5], [6], [7]]),
                attention_mask=mask,
                position_ids=found.position + 1,
                past_key_values=found.cache,
            ).logits[:, -1]
        answers.append((found.logits, found.mask, found.position, after))
    for together, in_parts in zip(*answers, strict=True):
        torch.testing.assert_close(together, in_parts)
