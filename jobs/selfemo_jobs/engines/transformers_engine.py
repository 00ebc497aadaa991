"""The engine `Transformers`: a plain Transformers model, for machines without a build of vLLM.

Each prompt is read once for all its completions. So is each beginning that several completions of a
prompt share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import PreTrainedTokenizerBase

from selfemo_jobs.acceleration.prefill import Prefill, next_logits, prefill
from selfemo_jobs.engines.completion_end import end_tokens, sampling_of_each
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.engines.sampling import draw, processed_logprobs, uniforms
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    PrefillFunction = Callable[[PreTrainedModel, Sequence[Sequence[int]], int], Prefill]


@dataclass(frozen=True)
class TransformersArgs:
    """The arguments that ``engineArgs`` may have for this engine."""

    batch_size: int = 64
    """The number of completions that are drawn together. On two cores, larger batches gain nothing,
    except where each prompt has many short completions: these share their beginnings, and 256 are a
    fifth faster."""
    device: str = "auto"
    """The device, as PyTorch names it. `auto` is the first GPU, or the CPU where there is none."""
    dtype: str = "auto"
    """`float32`, `bfloat16` or `float16`. `auto` is float32 on a CPU, because few CPUs have fast
    bfloat16, and the model's own type on a GPU."""

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> Self:
        """Return the arguments of a spec, checked.

        Raises
        ------
        BadInput
            If an argument is unknown, or its value is not valid.
        """
        known: dict[str, type] = {f.name: type(getattr(cls, f.name)) for f in fields(cls)}
        for name, value in arguments.items():
            if name == "trust_remote_code" and value is False:
                continue  # the schema allows it
            if name not in known:
                raise BadInput(
                    f"`engineArgs.{name}` is not an argument of the engine Transformers: "
                    f"it takes {', '.join(sorted(known))}"
                )
            # JSON may write a whole number as 64.0
            whole = isinstance(value, float) and value.is_integer() and known[name] is int
            if isinstance(value, bool) or not (isinstance(value, known[name]) or whole):
                raise BadInput(f"`engineArgs.{name}` must be of type {known[name].__name__}")
        result = cls(**{k: known[k](v) for k, v in arguments.items() if k in known})
        if result.batch_size < 1:
            raise BadInput("`engineArgs.batch_size` must be 1 or more")
        if result.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise BadInput("`engineArgs.dtype` must be auto, float32, bfloat16 or float16")
        return result


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
    """

    def __init__(
        self,
        folder: Path,
        arguments: TransformersArgs = TransformersArgs(),
        *,
        max_model_len: int,
        model: PreTrainedModel | None = None,
    ) -> None:
        self._tokenizer = load_tokenizer(folder)
        if model is None:
            self._device = _device(arguments.device)
            dtype = _dtype(arguments.dtype, self._device, folder)
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
        self._model: PreTrainedModel | None = model.to(self._device)
        self._ends = end_tokens(folder, self._tokenizer)
        self._batch = arguments.batch_size
        self._max_model_len = max_model_len

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self._tokenizer

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
        """
        by_sampling: dict[Sampling, list[int]] = {}
        for index, one in enumerate(sampling_of_each(prompts, sampling, self._max_model_len)):
            by_sampling.setdefault(one, []).append(index)
        completions: dict[int, list[Completion]] = {}
        for one, indices in by_sampling.items():
            # prompts of similar length share a batch: little padding
            order = sorted(indices, key=lambda i: (len(prompts[i]), i))
            size = max(1, self._batch // one.n)
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                with self._precision:
                    drawn = self._complete(prompts, chosen, one)
                completions.update(zip(chosen, drawn, strict=True))
        return [completions[i] for i in range(len(prompts))]

    def close(self) -> None:
        """Free the model."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _complete(
        self, prompts: Sequence[Sequence[int]], chosen: Sequence[int], sampling: Sampling
    ) -> list[list[Completion]]:
        """Return the completions of the prompts at some indices, drawn as one batch."""
        batch = _Batch(self, [prompts[i] for i in chosen], sampling)
        noise = None
        if sampling.temperature > 0:
            drawn = [uniforms(sampling.seed, i, sampling.n, sampling.max_tokens) for i in chosen]
            noise = torch.cat(drawn).to(self._device)
        batch.run(noise)
        completions = batch.completions()
        return [completions[i : i + sampling.n] for i in range(0, len(completions), sampling.n)]

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


class _Batch:
    """Completions that are being drawn. There is a row for each member of each prompt's group.

    Members of a prompt that begin alike have the same distribution of the next token. So the model
    reads each distinct beginning once. The beginnings form a tree; a node is a beginning, with the
    rows that share it.
    """

    def __init__(
        self, engine: TransformersEngine, prompts: list[Sequence[int]], sampling: Sampling
    ) -> None:
        self._engine = engine
        self._sampling = sampling
        self._device = engine.model.device
        n = sampling.n
        rows = len(prompts) * n
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._logprobs: list[list[float]] = [[] for _ in range(rows)]
        self._finished = [False] * rows
        self._cut: dict[int, str] = {}
        self._texts: dict[tuple[int, ...], str] = {}
        #: The unfinished rows of each node.
        self._nodes = [list(range(i * n, i * n + n)) for i in range(len(prompts))]
        state = engine.prefill(prompts)
        self._logits, self._cache = state.logits, state.cache
        self._mask, self._position = state.mask, state.position

    def run(self, noise: torch.Tensor | None) -> None:
        """Draw tokens until every row has ended or has reached its limit.

        Parameters
        ----------
        noise
            float64 in [0, 1), shape (rows, max_tokens). None draws greedily.
        """
        for step in range(self._sampling.max_tokens):
            self._draw(noise[:, step] if noise is not None else None)
            children = self._children()
            if not children or step + 1 == self._sampling.max_tokens:
                return
            self._descend(children)

    def completions(self) -> list[Completion]:
        """Return the completion of each row, in order."""
        return [
            Completion(
                token_ids=tuple(tokens),
                logprobs=tuple(logprobs),
                text=self._cut[row] if row in self._cut else self._text(tokens),
                finished=finished,
            )
            for row, (tokens, logprobs, finished) in enumerate(
                zip(self._tokens, self._logprobs, self._finished, strict=True)
            )
        ]

    def _draw(self, noise: torch.Tensor | None) -> None:
        """Draw a token for each unfinished row, and record which rows have ended."""
        if noise is None:
            for rows, token in zip(self._nodes, self._logits.argmax(dim=-1).tolist(), strict=True):
                for row in rows:
                    self._append(row, token)
            return
        logprobs = processed_logprobs(
            self._logits, self._sampling.temperature, self._sampling.top_p
        )
        # a node with fewer rows than the widest draws for its first row again; that is not used
        widest = max(len(rows) for rows in self._nodes)
        padded = [rows + rows[:1] * (widest - len(rows)) for rows in self._nodes]
        tokens = draw(logprobs, noise[torch.tensor(padded, device=self._device)])
        token_logprobs = logprobs.gather(-1, tokens).tolist()
        for rows, drawn, values in zip(self._nodes, tokens.tolist(), token_logprobs, strict=True):
            for row, token, value in zip(rows, drawn, values, strict=False):
                self._append(row, token)
                self._logprobs[row].append(value)

    def _append(self, row: int, token: int) -> None:
        self._tokens[row].append(token)
        self._finished[row] = token in self._engine.ends or self._stops(row)

    def _stops(self, row: int) -> bool:
        if not self._sampling.stop:
            return False
        text = self._text(self._tokens[row])
        places = [place for stop in self._sampling.stop if (place := text.find(stop)) >= 0]
        if places:
            self._cut[row] = text[: min(places)]
        return bool(places)

    def _text(self, tokens: list[int]) -> str:
        """Return the text of tokens. It is cached: a batch has few distinct short answers."""
        key = tuple(tokens)
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self._engine.tokenizer.decode(key, skip_special_tokens=True)
        return text

    def _children(self) -> dict[tuple[int, int], list[int]]:
        """Return the unfinished rows, by their node and the token that they drew."""
        children: dict[tuple[int, int], list[int]] = {}
        for node, rows in enumerate(self._nodes):
            for row in rows:
                if not self._finished[row]:
                    children.setdefault((node, self._tokens[row][-1]), []).append(row)
        return children

    def _descend(self, children: dict[tuple[int, int], list[int]]) -> None:
        """Replace the nodes by their children, and read the children's tokens."""
        parents = [node for node, _ in children]
        if parents != list(range(len(self._nodes))):
            chosen = torch.tensor(parents, device=self._device)
            self._cache.batch_select_indices(chosen)
            self._mask, self._position = self._mask[chosen], self._position[chosen]
        self._nodes = list(children.values())
        tokens = torch.tensor([[token] for _, token in children], device=self._device)
        self._position = self._position + 1
        self._mask = torch.cat([self._mask, torch.ones_like(self._mask[:, :1])], dim=1)
        self._logits = next_logits(
            self._engine.model, tokens, self._mask, self._position, self._cache
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"`engineArgs.device` {name}: {' '.join(str(error).split())}") from None


def _dtype(name: str, device: torch.device, folder: Path) -> torch.dtype:
    if name != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[name]
    if device.type == "cpu":
        return torch.float32
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return config.dtype or torch.float32
