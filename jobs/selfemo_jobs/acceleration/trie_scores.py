"""Log-probabilities of the same few continuations after each prompt, from one prefill.

The continuations form a trie (:mod:`selfemo_jobs.acceleration.token_trie`), and the model reads
each of its nodes once for each prompt. A model of the plain build reads all nodes in one pass: a
mask lets a node attend to its prompt and to the nodes on the way to it. Other models read level by
level, in rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from selfemo_jobs.acceleration.last_layer import can_pack
from selfemo_jobs.acceleration.prefill import Prefill, next_logits
from selfemo_jobs.acceleration.token_trie import TokenTrie

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: The most tokens that are read at once. On a CPU, more are slower (`cpu_prefill.CPU_TOKENS`).
MAX_TOKENS = 512
#: Tokens of the vocabulary whose logits are computed at once: on a CPU they stay in the processor's
#: cache until they are summed. The head and the sum over 49,152 tokens take 0.28 s for 448 places,
#: and 0.36 s in one piece (0.08 s and 0.17 s in bfloat16; SmolLM2's head, one core).
CPU_LOGITS = 2048
#: The same for a GPU, where it bounds the memory.
GPU_LOGITS = 1 << 15


@dataclass(frozen=True)
class TrieScores:
    """What a model predicts at the nodes of a trie, after each prompt. All is on the CPU."""

    logprobs: Tensor
    """The natural logarithm of each sequence's probability after each prompt: float64, shape
    (prompts, sequences)."""
    best: Tensor | None
    """The most likely next token at each node: int64, shape (prompts, nodes). None: it was not
    computed."""
    distance: Tensor | None
    """The logit of that token less the logit of the next likely one: float32, shape (prompts,
    nodes)."""

    def greedy(self, trie: TokenTrie, distance: float) -> list[list[int]]:
        """Return the first tokens of each prompt's greedy completion, as far as they are certain.

        The first token is that of the prefill. Another one is certain if it is more likely than any
        other by a distance: other shapes of the same products, as in a batch of another size, give
        logits that differ in their last digits.

        Parameters
        ----------
        trie
            The trie that was scored.
        distance
            The least distance of two logits.

        Raises
        ------
        ValueError
            If the most likely tokens were not computed.
        """
        if self.best is None or self.distance is None:
            raise ValueError("the most likely tokens were not computed")
        certain = (self.distance > distance).tolist()
        completions = []
        for row, best in enumerate(self.best.tolist()):
            tokens, node = [best[0]], 0
            while (child := trie.children.get((node, tokens[-1]))) and certain[row][child]:
                node = child
                tokens.append(best[node])
            completions.append(tokens)
        return completions


@torch.inference_mode()
def score_trie(
    model: PreTrainedModel, state: Prefill, trie: TokenTrie, *, best: bool = False
) -> TrieScores:
    """Return the log-probabilities of a trie's sequences after each prompt.

    Parameters
    ----------
    model
        The model.
    state
        The model's state after the prompts. It stays as it is.
    trie
        The sequences.
    best
        Whether the most likely tokens are computed too.
    """
    rows = state.logits.size(0)
    sums = _Sums(rows, trie, best=best)
    sums.add(slice(0, rows), (0,), [(0, state.logits.unsqueeze(1))])
    if sums.best is not None:
        # of equal logits, the one that is drawn
        sums.best[:, 0] = state.logits.argmax(dim=-1).cpu()
    if len(trie) > 1:
        read = _read_at_once if _reads_at_once(model, state) else _read_levels
        size = max(1, MAX_TOKENS // (len(trie) - 1))
        for start in range(0, rows, size):
            part = slice(start, min(rows, start + size))
            for nodes, logits in read(model, state, part, trie):
                sums.add(part, nodes, logits)
    return sums.scores()


#: Logits of shape (rows, nodes, tokens): those of neighboring tokens of the vocabulary, with the
#: first of these tokens.
_Logits = tuple[int, Tensor]
#: Some nodes, parents before children, with their logits.
_Reading = tuple[tuple[int, ...], Iterator[_Logits] | list[_Logits]]


class _Sums:
    """The scores of a trie, filled in node by node.

    Parameters
    ----------
    rows
        The number of prompts.
    trie
        The trie.
    best
        Whether the most likely tokens are computed too.
    """

    def __init__(self, rows: int, trie: TokenTrie, *, best: bool) -> None:
        self._trie = trie
        self._edges = torch.empty(rows, len(trie.edges), dtype=torch.float64)
        self.best = torch.empty(rows, len(trie), dtype=torch.int64) if best else None
        self._distance = torch.empty(rows, len(trie)) if best else None

    def add(
        self, rows: slice, nodes: tuple[int, ...], logits: Iterator[_Logits] | list[_Logits]
    ) -> None:
        """Add the predictions at some nodes.

        Parameters
        ----------
        rows
            The prompts.
        nodes
            The nodes.
        logits
            The logits of the whole vocabulary, in pieces.
        """
        place = {node: i for i, node in enumerate(nodes)}
        totals, values, tokens = [], [], []
        for first, piece in logits:
            wide = piece.float()
            totals.append(torch.logsumexp(wide, dim=-1))
            self._add_edges(rows, place, first, wide)
            if self.best is not None:
                largest = wide.topk(min(2, wide.size(-1)), dim=-1)
                values.append(largest.values)
                tokens.append(largest.indices + first)
        total = torch.logsumexp(torch.stack(totals), dim=0).cpu().double()
        for edge, (node, _) in enumerate(self._trie.edges):
            if node in place:
                self._edges[rows, edge] -= total[:, place[node]]
        if self.best is not None and self._distance is not None:
            columns = list(nodes)
            largest = torch.cat(values, dim=-1).topk(2, dim=-1)
            best = torch.cat(tokens, dim=-1).gather(-1, largest.indices[..., :1])
            self.best[rows, columns] = best.squeeze(-1).cpu()
            self._distance[rows, columns] = (-largest.values.diff(dim=-1)).squeeze(-1).cpu()

    def scores(self) -> TrieScores:
        """Return the scores. All nodes must have been added."""
        sequences = [self._edges[:, list(path)].sum(dim=-1) for path in self._trie.paths]
        return TrieScores(torch.stack(sequences, dim=-1), self.best, self._distance)

    def _add_edges(self, rows: slice, place: dict[int, int], first: int, logits: Tensor) -> None:
        """Write the logits of the edges whose tokens are in a piece of the vocabulary."""
        inside = range(first, first + logits.size(-1))
        edges = [
            (edge, place[node], token - first)
            for edge, (node, token) in enumerate(self._trie.edges)
            if node in place and token in inside
        ]
        if edges:
            columns, nodes, tokens = map(list, zip(*edges, strict=True))
            self._edges[rows, columns] = logits[:, nodes, tokens].cpu().double()


def _reads_at_once(model: PreTrainedModel, state: Prefill) -> bool:
    """Return whether the model can read all nodes of a trie in one pass."""
    plain = all(type(layer) is DynamicLayer for layer in state.cache.layers)
    head = model.get_output_embeddings()
    return plain and can_pack(model.config) and getattr(head, "bias", head) is None


def _read_at_once(
    model: PreTrainedModel, state: Prefill, rows: slice, trie: TokenTrie
) -> Iterator[_Reading]:
    """Yield all nodes but node 0, with their logits."""
    nodes = tuple(range(1, len(trie)))
    device, size = state.mask.device, rows.stop - rows.start
    on_the_way = torch.zeros(len(trie), len(trie), dtype=torch.bool)
    for node in nodes:
        on_the_way[node, list(trie.ancestors[node])] = True
    prompt = state.mask[rows, None, None, :].bool().expand(-1, 1, len(nodes), -1)
    tree = on_the_way[1:, 1:].to(device).expand(size, 1, -1, -1)
    depths = torch.tensor([trie.depth(node) for node in nodes], device=device)
    cache = DynamicCache(config=model.config)
    for index, layer in enumerate(state.cache.layers):
        cache.update(layer.keys[rows], layer.values[rows], index)
    hidden = model.get_decoder()(
        input_ids=torch.tensor(trie.tokens[1:], device=device).expand(size, -1),
        attention_mask=torch.cat([prompt, tree], dim=-1),
        position_ids=state.position[rows] + depths,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    yield nodes, _logits_in_pieces(hidden.contiguous(), model.get_output_embeddings().weight)


def _logits_in_pieces(hidden: Tensor, head: Tensor) -> Iterator[_Logits]:
    """Yield the logits of some tokens of the vocabulary after others.

    Parameters
    ----------
    hidden
        Hidden states of shape (rows, nodes, size).
    head
        The weights of the head, of shape (vocabulary, size).
    """
    size = CPU_LOGITS if hidden.device.type == "cpu" else GPU_LOGITS
    for start in range(0, len(head), size):
        yield start, functional.linear(hidden, head[start : start + size])


def _read_levels(
    model: PreTrainedModel, state: Prefill, rows: slice, trie: TokenTrie
) -> Iterator[_Reading]:
    """Yield the nodes of each level after the first, with their logits."""
    device, size = state.mask.device, rows.stop - rows.start
    part = state.select(range(rows.start, rows.stop))
    cache, mask, position = part.cache, part.mask, part.position
    level: tuple[int, ...] = (0,)
    while True:
        above = {node: i for i, node in enumerate(level)}
        nodes = tuple(node for node in range(1, len(trie)) if trie.parents[node] in above)
        if not nodes:
            return
        parents = torch.tensor([above[trie.parents[node]] for node in nodes], device=device)
        # rows are in the order of the prompts, and those of a prompt in the order of the nodes
        chosen = (torch.arange(size, device=device)[:, None] * len(level) + parents).flatten()
        cache.batch_select_indices(chosen)
        position = position[chosen] + 1
        mask = functional.pad(mask[chosen], (0, 1), value=1)
        ids = torch.tensor([trie.tokens[node] for node in nodes], device=device).repeat(size)
        logits = next_logits(model, ids[:, None], mask, position, cache)
        yield nodes, [(0, logits.view(size, len(nodes), -1))]
        level = nodes
