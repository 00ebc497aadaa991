"""Engine over a plain Transformers model, for machines where no vLLM build fits.

Each prompt is read once, however many completions it gets, and so is every beginning that several
of its completions share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from transformers import PreTrainedTokenizerBase

from selfemo_jobs.acceleration.bf16_emulation import bfloat16_products
from selfemo_jobs.acceleration.prefill import next_logits, read
from selfemo_jobs.engines.completion_end import end_tokens, sampling_of_each
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.engines.sampling import draw, processed_logprobs, uniforms
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TransformersArgs:
    """What ``engineArgs`` may hold for this engine."""

    batch_size: int = 64
    """Completions drawn together. On two cores larger batches gain nothing, but where a prompt has
    many short ones: they share their beginnings, and 256 are a fifth faster."""
    device: str = "auto"
    """`auto`: the first GPU, else the CPU."""
    dtype: str = "auto"
    """`auto`: float32 on a CPU (few have fast bfloat16), the model's own on a GPU."""

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> Self:
        """Return the arguments, checked. Raises BadInput."""
        known: dict[str, type] = {f.name: type(getattr(cls, f.name)) for f in fields(cls)}
        for name, value in arguments.items():
            if name == "trust_remote_code" and value is False:
                continue  # the schema lets it be said
            if name not in known:
                raise BadInput(
                    f"`engineArgs.{name}` is not known to the engine Transformers: "
                    f"it takes {', '.join(sorted(known))}"
                )
            # a JSON number may come as 64.0
            whole = isinstance(value, float) and value.is_integer() and known[name] is int
            if isinstance(value, bool) or not (isinstance(value, known[name]) or whole):
                raise BadInput(f"`engineArgs.{name}` must be of type {known[name].__name__}")
        taken = {k: known[k](v) for k, v in arguments.items() if k in known}
        result = cls(**taken)
        if result.batch_size < 1:
            raise BadInput("`engineArgs.batch_size` must be 1 or more")
        if result.dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise BadInput("`engineArgs.dtype` must be auto, float32, bfloat16 or float16")
        return result


class TransformersEngine:
    """See :class:`~selfemo_jobs.engines.interface.TextEngine`."""

    def __init__(
        self, folder: Path, arguments: TransformersArgs = TransformersArgs(), *, max_model_len: int
    ) -> None:
        self._tokenizer = load_tokenizer(folder)
        self._device = _device(arguments.device)
        dtype = _dtype(arguments.dtype, self._device, folder)
        rounds = dtype is torch.bfloat16 and self._device.type == "cpu"
        self._arithmetic = bfloat16_products(rounds)
        model = load_model(folder, dtype)
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
        """Return ``sampling.n`` completions for each prompt, in order.

        Raises
        ------
        ValueError
            If a prompt is empty, or with its completion longer than ``max_model_len``.
        """
        kinds: dict[Sampling, list[int]] = {}
        for index, its in enumerate(sampling_of_each(prompts, sampling, self._max_model_len)):
            kinds.setdefault(its, []).append(index)
        found: dict[int, list[Completion]] = {}
        for its, indices in kinds.items():
            # neighbors in length share a batch: little padding
            order = sorted(indices, key=lambda i: (len(prompts[i]), i))
            size = max(1, self._batch // its.n)
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                with self._arithmetic:
                    found.update(zip(chosen, self._complete(prompts, chosen, its), strict=True))
        return [found[i] for i in range(len(prompts))]

    def close(self) -> None:
        """Free the model."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _complete(
        self, prompts: Sequence[Sequence[int]], chosen: Sequence[int], sampling: Sampling
    ) -> list[list[Completion]]:
        """Return the completions of one batch, by the prompts' indices."""
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
        """Tokens that end a completion."""
        return self._ends


class _Batch:
    """Completions under way: rows are (prompt, member), prompt first.

    Members of one prompt that begin alike have the same next-token distribution. So the model
    reads each distinct beginning once: the rows form a tree, and a node is what several share.
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
        #: The rows that go on, of each node.
        self._nodes = [list(range(i * n, i * n + n)) for i in range(len(prompts))]
        reading = read(engine.model, prompts, engine.tokenizer.pad_token_id)
        self._logits, self._cache = reading.logits, reading.cache
        self._mask, self._position = reading.mask, reading.position

    def run(self, noise: torch.Tensor | None) -> None:
        """Draw until every row has ended or is at its limit.

        ``noise``: float64 of shape (rows, max_tokens); None for greedy.
        """
        for step in range(self._sampling.max_tokens):
            self._take(noise[:, step] if noise is not None else None)
            children = self._children()
            if not children or step + 1 == self._sampling.max_tokens:
                return
            self._descend(children)

    def completions(self) -> list[Completion]:
        """Return what was drawn, row by row."""
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

    def _take(self, noise: torch.Tensor | None) -> None:
        """Take a token for each row that goes on, and note which have ended."""
        if noise is None:
            for rows, token in zip(self._nodes, self._logits.argmax(dim=-1).tolist(), strict=True):
                for row in rows:
                    self._append(row, token)
            return
        logprobs = processed_logprobs(
            self._logits, self._sampling.temperature, self._sampling.top_p
        )
        # a node with fewer rows than another draws for its first row again, unread
        widest = max(len(rows) for rows in self._nodes)
        padded = [rows + rows[:1] * (widest - len(rows)) for rows in self._nodes]
        tokens = draw(logprobs, noise[torch.tensor(padded, device=self._device)])
        taken = logprobs.gather(-1, tokens).tolist()
        for rows, drawn, values in zip(self._nodes, tokens.tolist(), taken, strict=True):
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
        """Return a beginning's text; short answers of a batch are mostly the same few."""
        key = tuple(tokens)
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self._engine.tokenizer.decode(key, skip_special_tokens=True)
        return text

    def _children(self) -> dict[tuple[int, int], list[int]]:
        """Return the rows that go on, by their node and the token they took."""
        children: dict[tuple[int, int], list[int]] = {}
        for node, rows in enumerate(self._nodes):
            for row in rows:
                if not self._finished[row]:
                    children.setdefault((node, self._tokens[row][-1]), []).append(row)
        return children

    def _descend(self, children: dict[tuple[int, int], list[int]]) -> None:
        """Go from the nodes to their children, and read the children's tokens."""
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
