"""How many tokens a model can read, by its configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.position_limit import check_prompt_tokens, position_limit


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024, "n_ctx": 1024}, 1024),
        ({}, None),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2}}, 8192),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {
                    "rope_type": "llama3",
                    "factor": 32.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
        ({"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "default"}}, 4096),
        ({"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic", "factor": 4}}, 64),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope", "long_factor": [4.0], "short_factor": [1.0]},
            },
            4096,
        ),
        (
            {
                "max_position_embeddings": 2048,
                "rope_parameters": {
                    "full_attention": {
                        "rope_type": "longrope",
                        "original_max_position_embeddings": 512,
                    },
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            512,
        ),
    ],
)
def test_the_limit_of_positions(config: dict[str, Any], limit: int | None) -> None:
    assert position_limit(config) == limit


@pytest.mark.parametrize("part", ["model", "decoder"])
def test_prompts_longer_than_the_positions_are_refused(tmp_path: Path, part: str) -> None:
    limits = {"n_positions": 300}
    config = {"model_type": "gpt2", **(limits if part == "model" else {"text_config": limits})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_prompt_tokens(tmp_path, 252, 48)
    with pytest.raises(
        BadInput, match=r"a context of 301, but it supports 300; set .* to at most 252"
    ):
        check_prompt_tokens(tmp_path, 253, 48)
