"""The rollouts that training reads: token ids, log-probabilities and advantages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_jobs.errors import BadRows

#: The columns of a scored table that training reads, in the order of
#: :data:`selfemo_jobs.runtime.schemas.SCORED`.
COLUMNS = (
    "group_id",
    "role",
    "member",
    "prompt_ids",
    "completion_ids",
    "logprobs",
    "consensus",
    "advantage",
)
#: Those of them that are lists of numbers.
LIST_COLUMNS = ("prompt_ids", "completion_ids", "logprobs")


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


@dataclass(frozen=True)
class RolloutData:
    """Completions with the data that self-play and scoring recorded, one row for each."""

    prompts: Rows
    """Token ids of the prompts."""
    completions: Rows
    """Token ids of the completions."""
    logprobs: Rows
    """Natural logarithm of each completion token's probability under the distribution that it was
    sampled from. The rows have the lengths of ``completions``."""
    advantages: npt.NDArray[np.float32]
    """Shape (rows,): the group-relative advantage, times the weight of the group."""
    groups: Sequence[Sequence[int]]
    """Row numbers of each group, in the order of group ids. The completions of a group have the
    same prompt and role."""
    imitated: npt.NDArray[np.bool_]
    """Shape (rows,): whether the completion is an answer to imitate. Such an answer was not sampled
    and has no advantage."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.advantages)

    @classmethod
    def from_table(cls, table: pa.Table, vocabulary: int | None = None) -> RolloutData:
        """Return the rollouts of a table, checked.

        Parameters
        ----------
        table
            A table of :func:`training_columns`.
        vocabulary
            Number of tokens of the model's vocabulary. With None the token ids are not compared
            with it.

        Returns
        -------
        RolloutData
            One row for each row of the table.

        Raises
        ------
        BadRows
            If a group mixes roles or prompts, a prompt is empty, lengths differ, a number is not
            finite, or a token is not in the vocabulary. The message names group and member.
        """
        lists = {name: _to_ragged(table[name]) for name in LIST_COLUMNS}
        advantages = table["advantage"].to_numpy().astype(np.float32)
        rollouts = cls(
            lists["prompt_ids"],
            lists["completion_ids"],
            lists["logprobs"],
            advantages,
            _rows_by_group(table["group_id"].to_pylist()),
            np.zeros(len(advantages), np.bool_),
        )
        _check_rows(table, rollouts, vocabulary)
        _check_groups(table, rollouts)
        return rollouts


def training_columns(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the columns of scored tables that training reads, sorted by group and member.

    Parameters
    ----------
    tables
        Tables with the columns of :data:`selfemo_jobs.runtime.schemas.SCORED`. There may be none.

    Returns
    -------
    pyarrow.Table
        The columns :data:`COLUMNS` of all tables.
    """
    parts = [table.select(COLUMNS) for table in tables]
    if not parts:
        return pa.table({name: [] for name in COLUMNS})
    joined = pa.concat_tables(parts)
    return joined.sort_by([("group_id", "ascending"), ("member", "ascending")]).combine_chunks()


def add_imitation_rows(
    rollouts: RolloutData,
    consensus: Iterable[Sequence[str] | None],
    encode_answer: Callable[[Sequence[str]], Sequence[int]],
) -> RolloutData:
    """Return the rollouts with one more row for each recognizer group: its consensus as an answer.

    Parameters
    ----------
    rollouts
        The rollouts.
    consensus
        The consensus of each recognizer group, and None for each responder group.
    encode_answer
        A function that returns the token ids of an answer that names some emotions.

    Returns
    -------
    RolloutData
        The same rows, followed by the answers. Each answer is in the group that it belongs to.
    """
    groups: list[Sequence[int]] = []
    prompts: list[npt.NDArray[Any]] = []
    answers: list[npt.NDArray[Any]] = []
    count = len(rollouts)
    for group, labels in zip(rollouts.groups, consensus, strict=True):
        if labels is None:
            groups.append(group)
            continue
        groups.append([*group, count + len(answers)])
        prompts.append(rollouts.prompts[group[0]])
        answers.append(np.asarray(encode_answer(labels), np.int64))
    added = len(answers)
    logprobs = [np.zeros(len(ids), np.float32) for ids in answers]
    return RolloutData(
        _append_rows(rollouts.prompts, prompts),
        _append_rows(rollouts.completions, answers),
        _append_rows(rollouts.logprobs, logprobs),
        np.concatenate([rollouts.advantages, np.zeros(added, np.float32)]),
        groups,
        np.concatenate([rollouts.imitated, np.ones(added, np.bool_)]),
    )


def _append_rows(array: Rows, rows: Sequence[npt.NDArray[Any]]) -> JoinedRows:
    """Return the array with some more rows, of the same type."""
    kind = array.values.dtype
    values = np.concatenate([np.empty(0, kind), *rows]).astype(kind)
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return JoinedRows(array, RaggedArray(values, ends))


def _to_ragged(column: pa.ChunkedArray) -> RaggedArray:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # a column without rows may have no chunk
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return RaggedArray(array.flatten().to_numpy(zero_copy_only=False), offsets)


def _rows_by_group(ids: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row, group_id in enumerate(ids):
        groups.setdefault(group_id, []).append(row)
    return list(groups.values())


def _check_rows(table: pa.Table, rollouts: RolloutData, vocabulary: int | None) -> None:
    def refuse(wrong: npt.NDArray[np.bool_], reason: str) -> None:
        if wrong.any():
            raise BadRows(f"{_row_name(table, int(wrong.argmax()))}: {reason}")

    completions, logprobs = rollouts.completions, rollouts.logprobs
    refuse(rollouts.prompts.lengths == 0, "`prompt_ids` is empty")
    refuse(
        completions.lengths != logprobs.lengths,
        "`logprobs` and `completion_ids` have different lengths",
    )
    refuse(~np.isfinite(rollouts.advantages), "`advantage` is not finite")
    refuse(_any_in_row(logprobs, ~np.isfinite(logprobs.values)), "`logprobs` is not finite")
    for name, ids in (("prompt_ids", rollouts.prompts), ("completion_ids", completions)):
        unknown = ids.values < 0
        if vocabulary is not None:
            unknown = unknown | (ids.values >= vocabulary)
        refuse(
            _any_in_row(ids, unknown),
            f"`{name}` has a token that is not in the model's vocabulary of {vocabulary} tokens: "
            "the model is not the one that generated the candidates",
        )


def _check_groups(table: pa.Table, rollouts: RolloutData) -> None:
    roles = table["role"].to_pylist()
    for group in rollouts.groups:
        first = group[0]
        for row in group[1:]:
            if roles[row] != roles[first]:
                raise BadRows(f"{_row_name(table, row)}: the group mixes roles")
            if not np.array_equal(rollouts.prompts[row], rollouts.prompts[first]):
                raise BadRows(f"{_row_name(table, row)}: the group mixes prompts")


def _any_in_row(array: Rows, flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return, for each row, whether one of its values is flagged."""
    if not flags.any():
        return np.zeros(len(array.lengths), np.bool_)
    before = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(before[array.offsets[1:]] > before[array.offsets[:-1]])


def _row_name(table: pa.Table, row: int) -> str:
    return f"group {table['group_id'][row].as_py()} member {table['member'][row].as_py()}"
