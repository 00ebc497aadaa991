"""Engines: what turns prompts into completions with their log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfemo_api.spec import Engine

if TYPE_CHECKING:
    from selfemo_jobs.engines.interface import TextEngine


def open_engine(
    engine: Engine,
    model_folder: Path,
    *,
    engine_args: Mapping[str, Any],
    max_model_len: int,
    seed: int,
) -> TextEngine:
    """Return a loaded engine. There is no fallback: what is asked for is what runs.

    Parameters
    ----------
    engine
        Which engine.
    model_folder
        Folder with the model (safetensors) and its tokenizer.
    engine_args
        Passed to the engine as they are: vLLM's own arguments, or those of
        :class:`~selfemo_jobs.engines.transformers_engine.TransformersArgs`.
    max_model_len
        Longest prompt and completion together, in tokens.
    seed
        For what an engine draws outside of the seed of
        :class:`~selfemo_jobs.engines.interface.Sampling`.

    Raises
    ------
    BadInput
        If the engine is not installed, does not know an argument, or cannot load the model.
    """
    if engine is Engine.VLLM:
        from selfemo_jobs.engines.vllm_engine import VllmEngine

        return VllmEngine(
            model_folder, engine_args=engine_args, max_model_len=max_model_len, seed=seed
        )
    from selfemo_jobs.engines.transformers_engine import TransformersArgs, TransformersEngine

    arguments = TransformersArgs.parse(engine_args)
    return TransformersEngine(model_folder, arguments, max_model_len=max_model_len)
