"""The tokens with which a model ends what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from selfemo_jobs.prompts.turn_end import turn_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def end_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a completion.

    One of them ends a turn of the model's chat template. Base models often have such a template and
    another end token (Qwen3-Base: ``<|im_end|>`` and ``<|endoftext|>``), and no file says that an
    answer ends there. Training teaches it.

    Parameters
    ----------
    folder
        The model's folder. The end tokens of its ``generation_config.json`` are used too.
    tokenizer
        The model's tokenizer.
    """
    from transformers import GenerationConfig

    ends = {tokenizer.eos_token_id}
    if (folder / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        ends.update([configured] if isinstance(configured, int) else configured or [])
    if tokenizer.chat_template:
        ends.add(turn_end(tokenizer))
    return frozenset(ends)
