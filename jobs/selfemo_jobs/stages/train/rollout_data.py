"""The rollouts that training reads: token ids, log-probabilities and advantages."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_jobs.errors import BadRows
from selfemo_jobs.stages.train.ragged_rows import (
    ExtendedGroups,
    FollowedGroups,
    JoinedRows,
    RaggedArray,
    Rows,
    SelectedRows,
    offsets_of,
)

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
    """Shape (rows,): whether the completion is to be imitated: an answer, or a
    response. Such a row has no advantage."""
    first_response: int | None = None
    """The rows from this number on are responses, which the responder imitates.
    None: there are none."""

    @property
    def responses(self) -> range:
        """The row numbers of the imitated responses."""
        return range(len(self) if self.first_response is None else self.first_response, len(self))

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
    count = len(rollouts)
    answered = np.full(len(rollouts.groups), -1, np.int64)
    firsts = array("q")
    answers: list[npt.NDArray[Any]] = []
    encoded: dict[tuple[str, ...], npt.NDArray[Any]] = {}
    for number, (group, labels) in enumerate(zip(rollouts.groups, consensus, strict=True)):
        if labels is None:
            continue
        if tuple(labels) not in encoded:
            encoded[tuple(labels)] = np.asarray(encode_answer(labels), np.int64)
        answered[number] = count + len(answers)
        firsts.append(group[0])
        answers.append(encoded[tuple(labels)])
    added = len(answers)
    completions = _append_rows(rollouts.completions, answers)
    lengths = completions.lengths[count:]
    zeros = RaggedArray(np.zeros(lengths.sum(), np.float32), offsets_of(lengths))
    return RolloutData(
        JoinedRows(rollouts.prompts, SelectedRows(rollouts.prompts, np.asarray(firsts, np.int64))),
        completions,
        JoinedRows(rollouts.logprobs, zeros),
        np.concatenate([rollouts.advantages, np.zeros(added, np.float32)]),
        ExtendedGroups(rollouts.groups, answered),
        np.concatenate([rollouts.imitated, np.ones(added, np.bool_)]),
    )


def add_response_rows(
    rollouts: RolloutData, prompts: RaggedArray, responses: RaggedArray
) -> RolloutData:
    """Return the rollouts with more rows: responses to imitate, each a group of its own.

    Parameters
    ----------
    rollouts
        The rollouts, with the answers to imitate.
    prompts, responses
        The token ids of the prompt and of the response of each.

    Returns
    -------
    RolloutData
        The same rows, followed by the responses.
    """
    count, added = len(rollouts), len(responses)
    zeros = RaggedArray(np.zeros(len(responses.values), np.float32), responses.offsets)
    return RolloutData(
        JoinedRows(rollouts.prompts, prompts),
        JoinedRows(rollouts.completions, responses),
        JoinedRows(rollouts.logprobs, zeros),
        np.concatenate([rollouts.advantages, np.zeros(added, np.float32)]),
        FollowedGroups(rollouts.groups, range(count, count + added)),
        np.concatenate([rollouts.imitated, np.ones(added, np.bool_)]),
        first_response=count,
    )


def _append_rows(before: Rows, rows: Sequence[npt.NDArray[Any]]) -> JoinedRows:
    """Return the array with some more rows, of the same type."""
    kind = before[0].dtype if len(before.lengths) else before.values.dtype
    values = np.concatenate([np.empty(0, kind), *rows]).astype(kind)
    lengths = np.array([len(row) for row in rows], np.int64)
    return JoinedRows(before, RaggedArray(values, offsets_of(lengths)))


def _to_ragged(column: pa.ChunkedArray) -> RaggedArray:
    lists = column.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # a column without rows may have no chunk
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], column.type)
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return RaggedArray(lists.flatten().to_numpy(zero_copy_only=False), offsets_of(lengths))


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
