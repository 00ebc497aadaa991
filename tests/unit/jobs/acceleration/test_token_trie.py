"""The trie of token sequences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfemo_jobs.acceleration.token_trie import TokenTrie

sequences = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple), min_size=1, max_size=8
)


@given(sequences)
def test_each_path_spells_its_sequence(items: list[tuple[int, ...]]) -> None:
    trie = TokenTrie.of(items)
    assert [tuple(trie.edges[edge][1] for edge in path) for path in trie.paths] == items
    for path, sequence in zip(trie.paths, items, strict=True):
        for length, edge in enumerate(path):
            assert trie.beginning(trie.edges[edge][0]) == sequence[:length]


@given(sequences)
def test_each_beginning_is_one_node(items: list[tuple[int, ...]]) -> None:
    trie = TokenTrie.of(items)
    beginnings = {item[:length] for item in items for length in range(len(item))}
    assert sorted(trie.beginning(node) for node in range(len(trie))) == sorted(beginnings)
    assert len(set(trie.edges)) == len(trie.edges)
    for node in range(len(trie)):
        assert trie.depth(node) == len(trie.beginning(node))
        assert list(trie.ancestors[node]) == sorted(trie.ancestors[node]), "parents come first"
        assert {token for parent, token in trie.edges if parent == node} == {
            *trie.next_tokens(node)
        }
    for (parent, token), child in trie.children.items():
        assert trie.beginning(child) == (*trie.beginning(parent), token)


@pytest.mark.parametrize("items", [[], [[]], [[1], []]])
def test_empty_sequences_are_refused(items: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        TokenTrie.of(items)
