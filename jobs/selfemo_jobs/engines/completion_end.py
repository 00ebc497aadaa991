"""Where completions end, and how long prompts may be: the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import GenerationConfig, PreTrainedTokenizerBase

from selfemo_jobs.engines.interface import Sampling


def sampling_of_each(
    prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling], max_model_len: int
) -> list[Sampling]:
    """Return each prompt's sampling.

    Raises
    ------
    ValueError
        If there are more or fewer of them than prompts, or the engine cannot read a prompt.
    """
    each = [sampling] * len(prompts) if isinstance(sampling, Sampling) else list(sampling)
    for index, (prompt, its) in enumerate(zip(prompts, each, strict=True)):
        if not prompt:
            raise ValueError(f"prompt {index} is empty")
        if len(prompt) + its.max_tokens > max_model_len:
            raise ValueError(
                f"prompt {index} has {len(prompt)} tokens: with {its.max_tokens} more it is over "
                f"max_model_len {max_model_len}"
            )
    return each


def end_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a completion: the tokenizer's, and the generation config's."""
    ends = {tokenizer.eos_token_id}
    if (folder / "generation_config.json").is_file():
        named = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        ends.update([named] if isinstance(named, int) else named or [])
    return frozenset(ends)
