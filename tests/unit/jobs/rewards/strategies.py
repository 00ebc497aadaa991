"""Hypothesis strategies for groups of label sets."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")

smoothings = st.floats(1e-3, 10.0)


def label_sets(labels: Sequence[str] = LABELS, least: int = 0) -> st.SearchStrategy[frozenset[str]]:
    """Sets of labels; mostly small, as answers are."""
    return st.one_of(
        st.frozensets(st.sampled_from(labels), min_size=least, max_size=2),
        st.frozensets(st.sampled_from(labels), min_size=least),
    )


@st.composite
def groups(draw: st.DrawFn, *, count: int = 4, members: int = 9) -> list[list[frozenset[str]]]:
    """Up to `count` groups of one size; many repeat an answer, so that votes agree and tie."""
    size = draw(st.integers(1, members))
    few = draw(st.lists(label_sets(), min_size=1, max_size=3))
    answers = st.one_of(st.sampled_from(few), label_sets())
    group = st.lists(answers, min_size=size, max_size=size)
    return draw(st.lists(group, min_size=1, max_size=count))
