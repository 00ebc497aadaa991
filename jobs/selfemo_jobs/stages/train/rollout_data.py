"""The kept candidates as training reads them: token ids, log-probabilities and advantages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.spec import Role
from selfemo_jobs.errors import BadInput

#: What training reads of a scored table, in the order of
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
_LISTS = ("prompt_ids", "completion_ids", "logprobs")


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one array."""

    values: npt.NDArray[Any]
    """Shape (total,)."""
    offsets: npt.NDArray[np.int64]
    """Shape (rows + 1,): row i is ``values[offsets[i]:offsets[i + 1]]``."""

    def __getitem__(self, row: int) -> npt.NDArray[Any]:
        """Return one row."""
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Length of each row, shape (rows,)."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Recorded:
    """Completions with what was recorded when they were sampled, one row each."""

    prompts: Ragged
    completions: Ragged
    logprobs: Ragged
    """Natural logarithms, of the distribution that was sampled from; ragged like completions."""
    advantages: npt.NDArray[np.float32]
    """Shape (rows,); group-relative, already times the group's weight."""
    groups: Sequence[Sequence[int]]
    """Rows of each group, by group id; a group is one prompt's completions, of one role."""
    imitated: npt.NDArray[np.bool_]
    """Shape (rows,): answers to learn as they are; they were not sampled and have no advantage."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.advantages)


def kept_columns(tables: Iterable[pa.Table]) -> pa.Table:
    """Return what training reads of scored tables, sorted by group and member."""
    schema = [table.select(COLUMNS) for table in tables]
    if not schema:
        return pa.table({name: [] for name in COLUMNS})
    joined = pa.concat_tables(schema)
    return joined.sort_by([("group_id", "ascending"), ("member", "ascending")]).combine_chunks()


def recorded(table: pa.Table, vocabulary: int | None = None) -> Recorded:
    """Return the rows of :func:`kept_columns`, checked.

    Parameters
    ----------
    table
        Sorted by group and member.
    vocabulary
        Number of tokens that the model knows; None: not checked.

    Raises
    ------
    BadInput
        If a group mixes roles or prompts, a prompt is empty, lengths differ, a number is not
        finite, or a token is beyond the vocabulary. The row is named by group and member.
    """
    lists = {name: _ragged(table[name]) for name in _LISTS}
    advantages = table["advantage"].to_numpy().astype(np.float32)
    rows = Recorded(
        lists["prompt_ids"],
        lists["completion_ids"],
        lists["logprobs"],
        advantages,
        _groups(table["group_id"].to_pylist()),
        np.zeros(len(advantages), np.bool_),
    )
    _check_rows(table, rows, vocabulary)
    _check_groups(table, rows)
    return rows


def with_answers(
    rows: Recorded, table: pa.Table, answer: Callable[[Sequence[str]], Sequence[int]]
) -> Recorded:
    """Return the rows with what each recognizer group agrees on as one more row of its group.

    Parameters
    ----------
    rows, table
        :func:`recorded` and what it was made of.
    answer
        The token ids of an answer that names some emotions.
    """
    roles, consensus = table["role"], table["consensus"]
    groups = [list(group) for group in rows.groups]
    told = [g for g in groups if roles[g[0]].as_py() == Role.RECOGNIZER.value]
    count = len(rows)
    first = [group[0] for group in told]
    answers = [np.asarray(answer(consensus[row].as_py()), np.int64) for row in first]
    for number, group in enumerate(told):
        group.append(count + number)
    added = len(told)
    return Recorded(
        _longer(rows.prompts, [rows.prompts[row] for row in first]),
        _longer(rows.completions, answers),
        _longer(rows.logprobs, [np.zeros(len(ids), np.float32) for ids in answers]),
        np.concatenate([rows.advantages, np.zeros(added, np.float32)]),
        groups,
        np.concatenate([rows.imitated, np.ones(added, np.bool_)]),
    )


def _longer(ragged: Ragged, more: Sequence[npt.NDArray[Any]]) -> Ragged:
    """Return the rows with some more, of the same type."""
    values = np.concatenate([ragged.values, *more]).astype(ragged.values.dtype)
    ends = ragged.offsets[-1] + np.cumsum([len(row) for row in more], dtype=np.int64)
    return Ragged(values, np.concatenate([ragged.offsets, ends]))


def _ragged(column: pa.ChunkedArray) -> Ragged:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no rows: no chunk to be had
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(array.flatten().to_numpy(zero_copy_only=False), offsets)


def _groups(names: Sequence[str]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        groups.setdefault(name, []).append(row)
    return list(groups.values())


def _check_rows(table: pa.Table, rows: Recorded, vocabulary: int | None) -> None:
    def refuse(wrong: npt.NDArray[np.bool_], why: str) -> None:
        if wrong.any():
            raise BadInput(f"{_name(table, int(wrong.argmax()))}: {why}; run self-play again")

    refuse(rows.prompts.lengths == 0, "`prompt_ids` is empty")
    refuse(
        rows.completions.lengths != rows.logprobs.lengths,
        "`logprobs` and `completion_ids` have different lengths",
    )
    refuse(~np.isfinite(rows.advantages), "`advantage` is not finite")
    refuse(_any(rows.logprobs, ~np.isfinite(rows.logprobs.values)), "`logprobs` is not finite")
    for name, ids in (("prompt_ids", rows.prompts), ("completion_ids", rows.completions)):
        beyond = ids.values < 0
        if vocabulary is not None:
            beyond = beyond | (ids.values >= vocabulary)
        refuse(
            _any(ids, beyond),
            f"`{name}` has a token that the model does not know (it knows {vocabulary}): the "
            "model is not the one that played",
        )


def _check_groups(table: pa.Table, rows: Recorded) -> None:
    roles = table["role"].to_pylist()
    for group in rows.groups:
        first = group[0]
        for row in group[1:]:
            if roles[row] != roles[first]:
                raise BadInput(f"{_name(table, row)}: the group mixes roles; score it again")
            if not np.array_equal(rows.prompts[row], rows.prompts[first]):
                raise BadInput(f"{_name(table, row)}: the group mixes prompts; run self-play again")


def _any(ragged: Ragged, flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return, for each row, whether one of its values is flagged."""
    before = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(before[ragged.offsets[1:]] > before[ragged.offsets[:-1]])


def _name(table: pa.Table, row: int) -> str:
    return f"group {table['group_id'][row].as_py()} member {table['member'][row].as_py()}"
