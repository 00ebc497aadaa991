"""The engine `Transformers`: a plain Transformers model, for machines without a build of vLLM.

Each prompt is read once for all its completions. So is each beginning that several completions of a
prompt share, or several prompts of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedTokenizerBase

from selfemo_jobs.acceleration.last_layer import can_pack
from selfemo_jobs.acceleration.prefill import Prefill, prefill
from selfemo_jobs.acceleration.prompt_states import PromptStates, can_divide
from selfemo_jobs.acceleration.shared_prefixes import LEAST_SHARE, prefill_shared, shared_share
from selfemo_jobs.acceleration.token_trie import TokenTrie
from selfemo_jobs.acceleration.trie_scores import score_trie
from selfemo_jobs.engines.completion_batch import CompletionBatch
from selfemo_jobs.engines.completion_end import (
    check_continuations,
    check_greedy,
    sampling_of_each,
)
from selfemo_jobs.engines.interface import Completion, Logprobs, Sampling
from selfemo_jobs.engines.sampling import uniforms
from selfemo_jobs.engines.transformers_args import DEFAULT_ARGS, TransformersArgs
from selfemo_jobs.models.end_tokens import end_tokens
from selfemo_jobs.models.fetch import load_model, load_tokenizer, move_model
from selfemo_jobs.models.memory_errors import memory_advice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    PrefillFunction = Callable[[PreTrainedModel, Sequence[Sequence[int]], int], Prefill]
    ReadFunction = Callable[[Sequence[Sequence[int]]], Prefill]


#: How much larger a logit must be than the next one, so that no batch of another size can change
#: their order, by the type of the weights. A float32 logit then differs by less than 1e-4. In the
#: other types the difference may be as large as the usual distance, so there all completions are
#: drawn in the same batches.
CERTAIN: dict[torch.dtype, float] = {torch.float32: 1e-3}
#: What to do if the memory is too small for a batch, in a stage and in a command.
LESS_MEMORY = (
    "lower `selfPlay.engineArgs.batch_size`; in an evaluation `overrides.evaluation.batchSize`, in "
    "a command `--batch-size`"
)


class TransformersEngine:
    """A :class:`~selfemo_jobs.engines.interface.TextEngine` over a Transformers model.

    Parameters
    ----------
    folder
        The model's folder.
    arguments
        The engine's arguments.
    max_model_len
        The most tokens of a prompt and its completion together.
    model
        The model, if it is loaded already, for example because it is trained. Its device and the
        type of its weights are then used. None: it is loaded from the folder.

    Raises
    ------
    BadInput
        If the device is unknown, or the model cannot be loaded.
    Unavailable
        If the device is busy or has no memory left, which may pass.
    """

    def __init__(
        self,
        folder: Path,
        arguments: TransformersArgs = DEFAULT_ARGS,
        *,
        max_model_len: int,
        model: PreTrainedModel | None = None,
    ) -> None:
        self._tokenizer = load_tokenizer(folder)
        if model is None:
            self._device = arguments.find_device()
            dtype = arguments.weights_dtype(self._device, folder)
        else:
            self._device, dtype = model.device, model.dtype
        self._prefill: PrefillFunction = prefill
        self._precision: AbstractContextManager[Any] = nullcontext()
        if self._device.type == "cpu":
            from selfemo_jobs.acceleration.bf16_emulation import bfloat16_context
            from selfemo_jobs.acceleration.cpu_prefill import prefill_in_parts

            self._prefill = prefill_in_parts
            if dtype is torch.bfloat16:
                self._precision = bfloat16_context()
        model = model if model is not None else load_model(folder, dtype)
        self._model: PreTrainedModel | None = move_model(model, self._device, folder)
        self._ends = end_tokens(folder, self._tokenizer)
        self._batch = arguments.batch_size
        self._max_model_len = max_model_len
        self._states: PromptStates | None = None

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self._tokenizer

    @memory_advice(LESS_MEMORY)
    @torch.inference_mode()
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
        StageError
            If the memory is too small for a batch.
        """
        alike: dict[tuple[Sampling, bool], list[int]] = {}
        for index, one in enumerate(sampling_of_each(prompts, sampling, self._max_model_len)):
            alike.setdefault((one, self._is_kept(prompts[index], one)), []).append(index)
        completions: dict[int, list[Completion]] = {}
        for (one, kept), indices in alike.items():
            size, go_on = max(1, self._batch // one.n), one.max_tokens > 1
            for chosen, read in self._batches(prompts, indices, size, kept=kept, go_on=go_on):
                with self._precision:
                    drawn = self._complete(prompts, chosen, one, read)
                completions.update(zip(chosen, drawn, strict=True))
        return [completions[i] for i in range(len(prompts))]

    @memory_advice(LESS_MEMORY)
    @torch.inference_mode()
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
        sampling_of_each(prompts, Sampling(max_tokens=0), self._max_model_len)
        check_continuations(prompts, continuations, self._max_model_len)
        trie = TokenTrie.of(continuations)
        go_on = len(trie) > 1
        alike: dict[bool, list[int]] = {}
        for index, prompt in enumerate(prompts):
            kept = not go_on and self._states is not None and prompt in self._states
            alike.setdefault(kept, []).append(index)
        logprobs: dict[int, Logprobs] = {}
        for kept, indices in alike.items():
            for chosen, read in self._batches(
                prompts, indices, self._batch, kept=kept, go_on=go_on
            ):
                with self._precision:
                    state = read([prompts[i] for i in chosen])
                    scores = score_trie(self.model, state, trie)
                logprobs.update(zip(chosen, map(tuple, scores.logprobs.tolist()), strict=True))
        return [logprobs[i] for i in range(len(prompts))]

    @memory_advice(LESS_MEMORY)
    @torch.inference_mode()
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
        results: dict[int, tuple[Completion, Logprobs]] = {}
        for chosen, read in self._batches(prompts, range(len(prompts)), self._batch):
            with self._precision:
                state = read([prompts[i] for i in chosen])
                distance = CERTAIN.get(self.model.dtype)
                scores = score_trie(self.model, state, trie, best=distance is not None)
                if distance is None:
                    completions = self._greedy(state, sampling)
                else:
                    known = scores.greedy(trie, distance)
                    completions = self._greedy_from(state, known, sampling, distance)
            pairs = zip(completions, map(tuple, scores.logprobs.tolist()), strict=True)
            results.update(zip(chosen, pairs, strict=True))
        return [results[i] for i in range(len(prompts))]

    def keep_states(self, trained: int) -> PromptStates | None:
        """Return the kept states of prompts, which completions of one token use from now on.

        Parameters
        ----------
        trained
            The number of last layers that the run trains.

        Returns
        -------
        PromptStates or None
            An object without states. None if the model cannot use them: it is not of the plain
            build, or all its layers are trained.
        """
        if not can_divide(self.model, trained):
            return None
        self._states = PromptStates(self.model, trained, self._precision)
        return self._states

    def close(self) -> None:
        """Free the model."""
        self._model = self._states = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _batches(
        self,
        prompts: Sequence[Sequence[int]],
        indices: Iterable[int],
        size: int,
        *,
        kept: bool = False,
        go_on: bool = True,
    ) -> Iterator[tuple[list[int], ReadFunction]]:
        """Yield the indices of the prompts that share a batch, and the function that reads them.

        Prompts with common beginnings are neighbors, and each beginning is read once. Where there
        is little to share, prompts of similar length are neighbors, which takes little padding.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        indices
            The prompts that are read.
        size
            The number of prompts of a batch.
        kept
            Whether the states of these prompts are kept, and used.
        go_on
            Whether more than the next token is predicted.
        """
        order = sorted(indices, key=lambda i: (len(prompts[i]), i))
        read: ReadFunction = self.prefill
        if kept and self._states is not None:
            read = self._states.prefill
        elif self._shares([prompts[i] for i in order]):
            order.sort(key=lambda i: (tuple(prompts[i]), i))
            read = partial(prefill_shared, self.model, keep_cache=go_on)
        for start in range(0, len(order), size):
            yield order[start : start + size], read

    def _shares(self, prompts: Sequence[Sequence[int]]) -> bool:
        """Return whether beginnings that prompts share are read once."""
        return can_pack(self.model.config) and shared_share(prompts) >= LEAST_SHARE

    def _is_kept(self, prompt: Sequence[int], sampling: Sampling) -> bool:
        """Return whether kept states are enough for the completions of a prompt."""
        return self._states is not None and sampling.max_tokens == 1 and prompt in self._states

    def _complete(
        self,
        prompts: Sequence[Sequence[int]],
        chosen: Sequence[int],
        sampling: Sampling,
        read: ReadFunction,
    ) -> list[list[Completion]]:
        """Return the completions of the prompts at some indices, drawn as one batch.

        Parameters
        ----------
        prompts
            The token ids of each prompt.
        chosen
            The indices.
        sampling
            How tokens are drawn.
        read
            Reads the prompts.
        """
        batch = CompletionBatch(self, read([prompts[i] for i in chosen]), sampling)
        noise = None
        if sampling.temperature > 0:
            drawn = [uniforms(sampling.seed, i, sampling.n, sampling.max_tokens) for i in chosen]
            noise = torch.cat(drawn).to(self._device)
        batch.run(noise)
        completions = batch.completions()
        return [completions[i : i + sampling.n] for i in range(0, len(completions), sampling.n)]

    def _greedy(self, state: Prefill, sampling: Sampling) -> list[Completion]:
        """Return the greedy completion of each prompt of a batch, drawn as in :meth:`generate`."""
        batch = CompletionBatch(self, state, sampling)
        batch.run(None)
        return batch.completions()

    def _greedy_from(
        self, state: Prefill, known: list[list[int]], sampling: Sampling, distance: float
    ) -> list[Completion]:
        """Return the same completions as :meth:`_greedy`, of which most are known already.

        Parameters
        ----------
        state
            The model's state after the prompts.
        known
            The first tokens of each prompt's completion.
        sampling
            The parameters of greedy sampling.
        distance
            How much larger a logit must be than the next one, so that another batch cannot change
            their order.
        """
        batch = CompletionBatch(self, state, sampling)
        unfinished = batch.follow(known)
        completions = batch.completions()
        if unfinished:
            rest = CompletionBatch(self, state.select(unfinished), sampling)
            if not rest.run_if_certain(distance):
                return self._greedy(state, sampling)
            for row, completion in zip(unfinished, rest.completions(), strict=True):
                completions[row] = completion
        return completions

    @property
    def model(self) -> PreTrainedModel:
        """The model. Raises RuntimeError once closed."""
        if self._model is None:
            raise RuntimeError("the engine is closed")
        return self._model

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a completion."""
        return self._ends

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """Read prompts, in the way that suits the device."""
        return self._prefill(self.model, prompts, self._tokenizer.pad_token_id)
