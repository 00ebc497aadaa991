"""Where completions end, and how long prompts may be: the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase

from selfemo_jobs.engines.base import Sampling


def check_lengths(prompts: Sequence[Sequence[int]], sampling: Sampling, max_model_len: int) -> None:
    """Refuse prompts that the engine cannot read. Raises ValueError."""
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(f"prompt {index} is empty")
        if len(prompt) + sampling.max_tokens > max_model_len:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens: with {sampling.max_tokens} more it is "
                f"over max_model_len {max_model_len}"
            )


def end_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a completion: the tokenizer's, and the generation config's."""
    ends = {tokenizer.eos_token_id}
    if (folder / "generation_config.json").is_file():
        named = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        ends.update([named] if isinstance(named, int) else named or [])
    return frozenset(ends)
