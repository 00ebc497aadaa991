"""Engines: they generate completions of prompts, with log-probabilities."""

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
    """Return an engine with a model loaded. There is no fallback to another engine.

    Parameters
    ----------
    engine
        The engine.
    model_folder
        The folder of the model (safetensors) with its tokenizer.
    engine_args
        Arguments of the engine: those of vLLM, or those of
        :class:`~selfemo_jobs.engines.transformers_args.TransformersArgs`.
    max_model_len
        The most tokens of a prompt and its completion together.
    seed
        The seed of random numbers that do not follow from the seed of
        :class:`~selfemo_jobs.engines.interface.Sampling`.

    Raises
    ------
    BadInput
        If the engine is not installed, does not have an argument, or cannot load the model.
    """
    if engine is Engine.VLLM:
        from selfemo_jobs.engines.vllm_engine import VllmEngine

        return VllmEngine(
            model_folder, engine_args=engine_args, max_model_len=max_model_len, seed=seed
        )
    from selfemo_jobs.engines.transformers_args import TransformersArgs
    from selfemo_jobs.engines.transformers_engine import TransformersEngine

    arguments = TransformersArgs.parse(engine_args)
    return TransformersEngine(model_folder, arguments, max_model_len=max_model_len)
