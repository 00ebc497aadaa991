"""The arguments of the engine that runs a model outside a run.

A model's description names the arguments with which the model was evaluated. It comes with the
model, whose author is trusted with nothing. So only arguments are taken from it that change how the
weights of the model are computed, and where.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from selfemo_api.model_description import Decoding
from selfemo_api.spec import Engine

log = logging.getLogger(__name__)

#: The arguments of vLLM that a description may set. Others load other files or classes, listen on
#: the network, or write files.
_OF_VLLM = frozenset(
    {
        # numbers
        *("calculate_kv_scales", "disable_sliding_window", "dtype", "enable_chunked_prefill"),
        *("enable_prefix_caching", "enforce_eager", "hf_overrides", "kv_cache_dtype"),
        *("max_model_len", "quantization", "seed"),
        # memory and GPUs
        *("async_scheduling", "block_size", "cpu_offload_gb", "data_parallel_size"),
        *("disable_custom_all_reduce", "enable_expert_parallel", "gpu_memory_utilization"),
        *("kv_cache_memory_bytes", "max_num_batched_tokens", "max_num_seqs"),
        *("pipeline_parallel_size", "swap_space", "tensor_parallel_size"),
    }
)


def described_arguments(decoding: Decoding) -> dict[str, Any]:
    """Return the arguments of a description that are safe, whoever wrote it.

    The log names the others. The engine Transformers checks its few arguments itself.

    Parameters
    ----------
    decoding
        The decoding of a model's description.

    Examples
    --------
    >>> values = {"dtype": "bfloat16", "worker_cls": "somewhere.Worker"}
    >>> described_arguments(Decoding(engine=Engine.VLLM, engine_args=values))
    {'dtype': 'bfloat16'}
    """
    if decoding.engine is not Engine.VLLM:
        return dict(decoding.engine_args)
    used = {name: value for name, value in decoding.engine_args.items() if name in _OF_VLLM}
    left = sorted(set(decoding.engine_args) - set(used) - {"trust_remote_code"})
    if left:
        log.warning(
            "the model's description sets %s of vLLM: not used, because it may load other code or "
            "files. Set it yourself if you need it",
            ", ".join(map(ascii, left)),
        )
    return used


def engine_arguments(
    decoding: Decoding, engine: Engine, arguments: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the arguments of an engine.

    Parameters
    ----------
    decoding
        How the model was evaluated.
    engine
        The engine.
    arguments
        The arguments that are set. None: those of the evaluation, if it had the same engine.

    Examples
    --------
    >>> decoding = Decoding(engine_args={"dtype": "bfloat16"}, batch_size=64)
    >>> engine_arguments(decoding, Engine.TRANSFORMERS, None)
    {'batch_size': 64, 'dtype': 'bfloat16'}
    >>> engine_arguments(decoding, Engine.VLLM, None)
    {}
    """
    if arguments is None:
        arguments = described_arguments(decoding) if engine is decoding.engine else {}
    if engine is Engine.TRANSFORMERS:
        return {"batch_size": decoding.batch_size, **arguments}
    return dict(arguments)
