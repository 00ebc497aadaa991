"""Rows of different lengths, and groups of rows, in a few flat arrays.

A training may have a hundred million rows. A Python object for each row or group would take more
memory than the tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class RaggedArray:
    """Rows of different lengths in one flat array.

    Examples
    --------
    >>> array = RaggedArray(np.array([7, 8, 9]), np.array([0, 1, 3]))
    >>> array[1].tolist()
    [8, 9]
    >>> array.lengths.tolist()
    [1, 2]
    """

    values: npt.NDArray[Any]
    """Shape (total,): the values of all rows."""
    offsets: npt.NDArray[np.int64]
    """Shape (rows + 1,): row i is ``values[offsets[i]:offsets[i + 1]]``."""

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Return one row."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Length of each row; shape (rows,)."""
        return np.diff(self.offsets)


class Rows(Protocol):
    """Rows of different lengths."""

    def __getitem__(self, row: int, /) -> npt.NDArray[Any]:
        """Return one row."""

    @property
    def values(self) -> npt.NDArray[Any]:
        """Shape (total,): the values of all rows."""

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Shape (rows + 1,): where each row begins in ``values``, and the number of values."""

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Length of each row; shape (rows,)."""


class JoinedRows:
    """The rows of two arrays, without a copy of them. Only ``values`` copies them.

    Parameters
    ----------
    first, second
        The arrays.

    Examples
    --------
    >>> one = RaggedArray(np.array([7, 8, 9]), np.array([0, 1, 3]))
    >>> JoinedRows(one, one)[2].tolist(), JoinedRows(one, one).offsets.tolist()
    ([7], [0, 1, 3, 4, 6])
    """

    def __init__(self, first: Rows, second: Rows) -> None:
        self._first = first
        self._second = second
        self.offsets: npt.NDArray[np.int64] = np.concatenate(
            [first.offsets, first.offsets[-1] + second.offsets[1:]]
        )

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Return one row."""
        count = len(self._first.lengths)
        return self._first[row] if row < count else self._second[row - count]

    @property
    def values(self) -> npt.NDArray[Any]:
        """Shape (total,): a copy of the values of all rows."""
        return np.concatenate([self._first.values, self._second.values])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Length of each row; shape (rows,)."""
        return np.diff(self.offsets)


class SelectedRows:
    """Some rows of an array, without a copy of them. Only ``values`` copies them.

    Parameters
    ----------
    rows
        The array.
    numbers
        Shape (selected,): the row numbers. A row may occur several times.

    Examples
    --------
    >>> one = RaggedArray(np.array([7, 8, 9]), np.array([0, 1, 3]))
    >>> rows = SelectedRows(one, np.array([1, 1]))
    >>> rows[1].tolist(), rows.offsets.tolist(), rows.values.tolist()
    ([8, 9], [0, 2, 4], [8, 9, 8, 9])
    """

    def __init__(self, rows: Rows, numbers: npt.NDArray[np.int64]) -> None:
        self._rows = rows
        self._numbers = numbers
        self.offsets = offsets_of(rows.lengths[numbers])

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Return one row."""
        return self._rows[int(self._numbers[row])]

    @property
    def values(self) -> npt.NDArray[Any]:
        """Shape (total,): a copy of the values of the rows."""
        kind = self._rows[0].dtype if len(self._rows.lengths) else self._rows.values.dtype
        return np.concatenate([np.empty(0, kind), *map(self._rows.__getitem__, self._numbers)])

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Length of each row; shape (selected,)."""
        return np.diff(self.offsets)


class _Groups(Sequence[Sequence[int]], ABC):
    """Groups of rows that are made when they are taken."""

    @abstractmethod
    def _group(self, number: int) -> Sequence[int]:
        """Return the rows of a group, by its number from 0."""

    @overload
    def __getitem__(self, index: int) -> Sequence[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sequence[int]]: ...
    def __getitem__(self, index: int | slice) -> Sequence[int] | list[Sequence[int]]:
        """Return the rows of a group, or those of some groups."""
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self._group(number) for number in numbers]
        return self._group(numbers)


class GroupRanges(_Groups):
    """Groups of consecutive rows: eight bytes for each.

    Parameters
    ----------
    ends
        Shape (groups,): the number of rows up to the end of each group.

    Examples
    --------
    >>> list(GroupRanges(np.array([2, 5])))
    [range(0, 2), range(2, 5)]
    """

    def __init__(self, ends: npt.NDArray[np.int64]) -> None:
        self._ends = ends

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._ends)

    def _group(self, number: int) -> range:
        return range(int(self._ends[number - 1]) if number else 0, int(self._ends[number]))


class ExtendedGroups(_Groups):
    """Groups of which some have one more row.

    Parameters
    ----------
    groups
        The groups.
    more
        Shape (groups,): the additional row of each group, or -1.

    Examples
    --------
    >>> list(ExtendedGroups([range(0, 2), range(2, 3)], np.array([3, -1])))
    [[0, 1, 3], range(2, 3)]
    """

    def __init__(self, groups: Sequence[Sequence[int]], more: npt.NDArray[np.int64]) -> None:
        self._groups = groups
        self._more = more

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._more)

    def _group(self, number: int) -> Sequence[int]:
        group, more = self._groups[number], int(self._more[number])
        return group if more < 0 else [*group, more]


class FollowedGroups(_Groups):
    """Groups that are followed by groups of one row each.

    Parameters
    ----------
    groups
        The groups.
    rows
        The rows of the others.

    Examples
    --------
    >>> list(FollowedGroups([range(0, 2)], range(2, 4)))
    [range(0, 2), [2], [3]]
    """

    def __init__(self, groups: Sequence[Sequence[int]], rows: range) -> None:
        self._groups = groups
        self._rows = rows

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self._groups) + len(self._rows)

    def _group(self, number: int) -> Sequence[int]:
        first = len(self._groups)
        return self._groups[number] if number < first else [self._rows[number - first]]


class FlaggedRows(Container[int]):
    """The rows with a flag: a byte for each row.

    Parameters
    ----------
    flags
        Shape (rows,): whether a row is one of them.

    Examples
    --------
    >>> 1 in FlaggedRows(np.array([False, True])), 0 in FlaggedRows(np.array([False, True]))
    (True, False)
    """

    def __init__(self, flags: npt.NDArray[np.bool_]) -> None:
        self._flags = flags

    def __contains__(self, row: object) -> bool:
        """Return whether a row has the flag."""
        return isinstance(row, int | np.integer) and bool(self._flags[row])


def offsets_of(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where each of several rows begins, and the number of all values.

    Parameters
    ----------
    lengths
        Shape (rows,): the length of each row.

    Examples
    --------
    >>> offsets_of(np.array([2, 3])).tolist()
    [0, 2, 5]
    """
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
