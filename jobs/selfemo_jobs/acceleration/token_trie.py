"""A trie of token sequences: each beginning that several sequences share is one node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class TokenTrie:
    """The beginnings of some token sequences, and the tokens that follow each of them.

    Node 0 is the empty beginning. A node is there only if a token follows it in a sequence: the
    end of a sequence does not have to be read. Parents come before their children.
    """

    parents: tuple[int, ...]
    """The parent of each node. Node 0 has -1."""
    tokens: tuple[int, ...]
    """The token that leads to each node from its parent. Node 0 has -1."""
    edges: tuple[tuple[int, int], ...]
    """Each node and token that a sequence has, once."""
    paths: tuple[tuple[int, ...], ...]
    """The edges of each sequence, in order, as indices of ``edges``."""

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> TokenTrie:
        """Return the trie of some sequences.

        Parameters
        ----------
        sequences
            The token ids of each sequence. Equal sequences share their edges.

        Raises
        ------
        ValueError
            If there is no sequence, or one is empty.

        Examples
        --------
        >>> trie = TokenTrie.of([[7, 1], [7, 8, 1]])
        >>> trie.tokens, trie.edges, trie.paths
        ((-1, 7, 8), ((0, 7), (1, 1), (1, 8), (2, 1)), ((0, 1), (0, 2, 3)))
        """
        if not sequences or not all(sequences):
            raise ValueError("a trie needs sequences of at least one token")
        nodes: dict[tuple[int, ...], int] = {(): 0}
        edges: dict[tuple[int, int], int] = {}
        for sequence in sequences:
            for length in range(len(sequence)):
                node = nodes.setdefault(tuple(sequence[:length]), len(nodes))
                edges.setdefault((node, sequence[length]), len(edges))
        return cls(
            parents=(-1, *(nodes[beginning[:-1]] for beginning in list(nodes)[1:])),
            tokens=(-1, *(beginning[-1] for beginning in list(nodes)[1:])),
            edges=tuple(edges),
            paths=tuple(
                tuple(
                    edges[nodes[tuple(sequence[:length])], sequence[length]]
                    for length in range(len(sequence))
                )
                for sequence in sequences
            ),
        )

    def __len__(self) -> int:
        """Return the number of nodes, node 0 included."""
        return len(self.parents)

    @cached_property
    def ancestors(self) -> tuple[tuple[int, ...], ...]:
        """The nodes on the way to each node: node 0 first, the node itself last."""
        ways: list[tuple[int, ...]] = [(0,)]
        for node in range(1, len(self)):
            ways.append((*ways[self.parents[node]], node))
        return tuple(ways)

    @cached_property
    def children(self) -> dict[tuple[int, int], int]:
        """The node to which a node and a token lead. An edge at a sequence's end has none."""
        pairs = zip(self.parents, self.tokens, strict=True)
        return {pair: node for node, pair in enumerate(pairs) if node}

    def depth(self, node: int) -> int:
        """Return the number of tokens of a node's beginning."""
        return len(self.ancestors[node]) - 1

    def beginning(self, node: int) -> tuple[int, ...]:
        """Return the tokens that lead to a node."""
        return tuple(self.tokens[n] for n in self.ancestors[node][1:])

    def next_tokens(self, node: int) -> tuple[int, ...]:
        """Return the tokens that follow a node."""
        return tuple(token for parent, token in self.edges if parent == node)
