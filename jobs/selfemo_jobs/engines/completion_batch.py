"""Completions of several prompts that a Transformers model draws together."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from selfemo_jobs.acceleration.prefill import Prefill, next_logits
from selfemo_jobs.engines.interface import Completion, Sampling
from selfemo_jobs.engines.sampling import draw, processed_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LoadedModel(Protocol):
    """What a batch uses of its engine."""

    @property
    def model(self) -> PreTrainedModel:
        """The model."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the model."""
        ...

    @property
    def ends(self) -> Container[int]:
        """The tokens that end a completion."""
        ...


class CompletionBatch:
    """Completions that are being drawn. There is a row for each member of each prompt's group.

    Members of a prompt that begin alike have the same distribution of the next token. So the model
    reads each distinct beginning once. The beginnings form a tree; a node is a beginning, with the
    rows that share it.

    Parameters
    ----------
    engine
        The engine, for its model, tokenizer and end tokens.
    state
        The model's state after the prompts. It is changed by drawing.
    sampling
        How tokens are drawn.
    """

    def __init__(self, engine: LoadedModel, state: Prefill, sampling: Sampling) -> None:
        self._engine = engine
        self._sampling = sampling
        self._device = engine.model.device
        n, prompts = sampling.n, state.logits.size(0)
        rows = prompts * n
        self._tokens: list[list[int]] = [[] for _ in range(rows)]
        self._logprobs: list[list[float]] = [[] for _ in range(rows)]
        self._finished = [False] * rows
        self._cut: dict[int, str] = {}
        self._texts: dict[tuple[int, ...], str] = {}
        #: The unfinished rows of each node.
        self._nodes = [list(range(i * n, i * n + n)) for i in range(prompts)]
        self._logits, self._cache = state.logits, state.cache
        self._mask, self._position = state.mask, state.position

    def follow(self, completions: Sequence[Sequence[int]]) -> list[int]:
        """Draw tokens that are known already, and return the rows that have not ended then.

        Parameters
        ----------
        completions
            The first tokens of each row.
        """
        limit = self._sampling.max_tokens
        for row, tokens in enumerate(completions):
            for token in tokens[:limit]:
                if not self._finished[row]:
                    self._append(row, token)
        drawn = enumerate(zip(self._finished, self._tokens, strict=True))
        return [row for row, (ended, tokens) in drawn if not ended and len(tokens) < limit]

    def run(self, noise: torch.Tensor | None) -> None:
        """Draw tokens until every row has ended or has reached its limit.

        Parameters
        ----------
        noise
            float64 in [0, 1), shape (rows, max_tokens). None draws greedily.
        """
        for step in range(self._sampling.max_tokens):
            self._draw(noise[:, step] if noise is not None else None)
            if not self._go_on(step):
                return

    def run_if_certain(self, distance: float) -> bool:
        """Draw tokens greedily, as long as another batch would draw the same ones.

        Parameters
        ----------
        distance
            How much larger the largest logit must be than the next one, at each token but the
            first.

        Returns
        -------
        bool
            Whether every row has ended or has reached its limit.
        """
        for step in range(self._sampling.max_tokens):
            if step:
                largest = self._logits.float().topk(2, dim=-1).values
                if bool((largest[:, 0] - largest[:, 1] <= distance).any()):
                    return False
            self._draw(None)
            if not self._go_on(step):
                return True
        return True

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
            self._draw_greedily()
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

    def _draw_greedily(self) -> None:
        """Append the token with the largest logit to each unfinished row."""
        largest = self._logits.argmax(dim=-1, keepdim=True)
        if self._sampling.greedy_logprobs:
            logits = self._logits.float()
            values = logits.gather(-1, largest) - logits.logsumexp(dim=-1, keepdim=True)
            for rows, value in zip(self._nodes, values.flatten().tolist(), strict=True):
                for row in rows:
                    self._logprobs[row].append(value)
        for rows, token in zip(self._nodes, largest.flatten().tolist(), strict=True):
            for row in rows:
                self._append(row, token)

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
        """Return the text of tokens. It is cached: a batch has few distinct short answers.

        The token that ended them is not a part of it, also where the tokenizer's files do not mark
        that token as special.
        """
        ended = bool(tokens) and tokens[-1] in self._engine.ends
        key = tuple(tokens[:-1] if ended else tokens)
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

    def _go_on(self, step: int) -> bool:
        """Read the tokens that were drawn, and return whether more are to be drawn."""
        children = self._children()
        if not children or step + 1 == self._sampling.max_tokens:
            return False
        self._descend(children)
        return True

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
