"""The rows of a training in files of the scratch folder.

The stage writes them part by part, and sorts them by group and member. The training processes map
the files into memory. All processes of a node so share one copy, which the system may drop and read
again. Besides, the stage holds one part and about a hundred bytes for each row.
"""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.spec import Role
from selfemo_jobs.errors import BadRows
from selfemo_jobs.stages.train.ragged_rows import GroupRanges, RaggedArray, offsets_of
from selfemo_jobs.stages.train.rollout_data import (
    LIST_COLUMNS,
    RolloutData,
    training_columns,
)
from selfemo_jobs.store.hashing import sha256
from selfemo_jobs.store.local_files import translated_errors

#: The type of the values of each list column.
_TYPES = {"prompt_ids": np.int32, "completion_ids": np.int32, "logprobs": np.float32}
#: The names of the files of the prompts of imitated responses, and of these responses.
_RESPONSES = ("imitated_prompt_ids", "imitated_completion_ids")
#: The number of values that are sorted at once: some tens of megabytes.
_BLOCK = 1 << 20
_GROUPS = "groups.arrow"
#: The columns of all groups together. Their offsets have 64 bits: an id has some twenty bytes, and
#: 32 bits would end at a hundred million groups.
_GROUP_COLUMNS = pa.schema(
    [
        ("group_id", pa.large_string()),
        ("role", pa.large_string()),
        ("consensus", pa.large_list(pa.large_string())),
    ]
)


def write_rollouts(tables: Iterable[pa.Table], folder: Path, vocabulary: int | None) -> int:
    """Write the rows of scored tables, checked and sorted; return their number.

    Parameters
    ----------
    tables
        Tables with the columns of :data:`selfemo_jobs.runtime.schemas.SCORED`. Memory holds one.
    folder
        The folder to write. What is in it is deleted.
    vocabulary
        Number of tokens of the model's vocabulary, see :meth:`RolloutData.from_table`.

    Raises
    ------
    BadInput
        If the folder cannot be written.
    BadRows
        If a row cannot be used.
    """
    with translated_errors(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    unsorted = _UnsortedRows(folder)
    for table in tables:
        if table.num_rows:
            columns = training_columns([table])
            with translated_errors(folder):
                unsorted.add(columns, vocabulary)
    with translated_errors(folder):
        return unsorted.sort()


def read_rollouts(folder: Path) -> RolloutData:
    """Return the rows in a folder. Their tokens are mapped from its files.

    Parameters
    ----------
    folder
        A folder of :func:`write_rollouts`.
    """
    ends = _group_table(folder)["end"].to_numpy()
    advantages = np.load(folder / "advantage.npy")
    arrays = {name: _read_ragged(folder, name) for name in LIST_COLUMNS}
    return RolloutData(
        arrays["prompt_ids"],
        arrays["completion_ids"],
        arrays["logprobs"],
        advantages,
        GroupRanges(ends),
        np.zeros(len(advantages), np.bool_),
    )


def read_consensus(folder: Path) -> Iterator[list[str] | None]:
    """Yield the consensus of each recognizer group, and None for each responder group.

    Parameters
    ----------
    folder
        A folder of :func:`write_rollouts`.
    """
    groups = _group_table(folder)
    for role, consensus in zip(groups["role"], groups["consensus"], strict=True):
        yield consensus.as_py() if role.as_py() == Role.RECOGNIZER.value else None


def write_responses(examples: Iterable[tuple[Sequence[int], Sequence[int]]], folder: Path) -> None:
    """Write the responses to imitate beside the rows, in their order.

    Parameters
    ----------
    examples
        The token ids of the prompt and of the response of each. Memory holds one.
    folder
        A folder of :func:`write_rollouts`.

    Raises
    ------
    BadInput
        If the folder cannot be written.
    """
    lengths = {name: array("q") for name in _RESPONSES}
    with translated_errors(folder), ExitStack() as stack:
        streams = {n: stack.enter_context(_values_file(folder, n).open("wb")) for n in _RESPONSES}
        for example in examples:
            for name, ids in zip(_RESPONSES, example, strict=True):
                streams[name].write(np.asarray(ids, np.int32).tobytes())
                lengths[name].append(len(ids))
    with translated_errors(folder):
        for name, of_rows in lengths.items():
            np.save(_offsets_file(folder, name), offsets_of(np.asarray(of_rows, np.int64)))


def read_responses(folder: Path) -> tuple[RaggedArray, RaggedArray]:
    """Return the token ids of the prompts and of the responses to imitate, mapped from files.

    Parameters
    ----------
    folder
        A folder of :func:`write_responses`.
    """
    prompts, responses = (_read_ragged(folder, name) for name in _RESPONSES)
    return prompts, responses


@dataclass
class _UnsortedRows:
    """The rows in the order of the parts: their lists in files, the rest in memory."""

    folder: Path
    """Where the files are."""
    members: list[npt.NDArray[Any]] = field(default_factory=list)
    """By part: the member of each row."""
    advantages: list[npt.NDArray[Any]] = field(default_factory=list)
    lengths: dict[str, list[npt.NDArray[Any]]] = field(
        default_factory=lambda: {name: [] for name in LIST_COLUMNS}
    )
    """By column and part: the length of each row's list."""
    groups: list[pa.Table] = field(default_factory=list)
    """By part: each group's id, role, consensus, number of rows, and a hash of role and prompt."""

    def add(self, table: pa.Table, vocabulary: int | None) -> None:
        """Check the rows of one part, sorted by group and member, and append them."""
        rows = RolloutData.from_table(table, vocabulary)
        for name, lists in zip(
            LIST_COLUMNS, (rows.prompts, rows.completions, rows.logprobs), strict=True
        ):
            with self._file(name).open("ab") as stream:
                lists.values.astype(_TYPES[name], copy=False).tofile(stream)
            self.lengths[name].append(lists.lengths.astype(np.int32))
        self.members.append(table["member"].to_numpy().astype(np.int32))
        self.advantages.append(rows.advantages)
        first = np.array([group[0] for group in rows.groups])
        columns = table.select(["group_id", "role", "consensus"]).take(pa.array(first))
        roles = columns["role"].to_pylist()
        hashes = [
            sha256(f"{role} ".encode() + rows.prompts[row].astype(np.int32).tobytes())[:16]
            for role, row in zip(roles, first, strict=True)
        ]
        self.groups.append(
            columns.cast(_GROUP_COLUMNS)
            .append_column("rows", pa.array([len(group) for group in rows.groups], pa.int32()))
            .append_column("hash", pa.array([int(text, 16) for text in hashes], pa.uint64()))
        )

    def sort(self) -> int:
        """Write the sorted rows; return their number."""
        if not self.groups:
            return 0
        groups = pa.concat_tables(self.groups).combine_chunks()
        self.groups.clear()
        ranks = pc.rank(groups["group_id"], tiebreaker="dense").to_numpy()
        rows = groups["rows"].to_numpy()
        order = np.lexsort((_join(self.members), np.repeat(ranks, rows)))
        np.save(self.folder / "advantage.npy", _join(self.advantages)[order])
        for name in LIST_COLUMNS:
            self._sort_lists(name, _join(self.lengths[name]), order)
        by_rank = np.argsort(ranks, kind="stable")
        self._write_groups(groups.take(pa.array(by_rank)), ranks[by_rank])
        return len(order)

    def _sort_lists(
        self, name: str, lengths: npt.NDArray[Any], order: npt.NDArray[np.int64]
    ) -> None:
        """Write the lists of a column in an order, and where each begins."""
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        offsets = np.concatenate([[0], np.cumsum(lengths[order], dtype=np.int64)])
        values = _map(self._file(name), _TYPES[name])
        with _values_file(self.folder, name).open("wb") as stream:
            first = 0
            while first < len(order):
                last = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
                rows = order[first : max(last, first + 1)]
                count = lengths[rows]
                places = np.arange(count.sum()) + np.repeat(
                    starts[rows] - np.cumsum(count) + count, count
                )
                values[places].tofile(stream)
                first += len(rows)
        np.save(_offsets_file(self.folder, name), offsets)
        self._file(name).unlink()

    def _write_groups(self, groups: pa.Table, ranks: npt.NDArray[Any]) -> None:
        """Write a row for each group: its end among the rows, its role and its consensus.

        Raises BadRows if the rows of one group in several parts have several roles or prompts.
        """
        is_same = ranks[1:] == ranks[:-1]
        hashes = groups["hash"].to_numpy()
        mixed = np.flatnonzero(is_same & (hashes[1:] != hashes[:-1]))
        if len(mixed):
            raise BadRows(
                f"group {groups['group_id'][int(mixed[0])].as_py()}: the group mixes roles or "
                "prompts"
            )
        is_last = np.concatenate([~is_same, [True]])
        ends = np.cumsum(groups["rows"].to_numpy(), dtype=np.int64)[is_last]
        first = groups.filter(pa.array(np.concatenate([[True], ~is_same])))
        table = first.select(["role", "consensus"]).append_column("end", pa.array(ends))
        with pa.ipc.new_file(str(self.folder / _GROUPS), table.schema) as writer:
            writer.write_table(table)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.unsorted"


def _group_table(folder: Path) -> pa.Table:
    with pa.memory_map(str(folder / _GROUPS)) as source:
        return pa.ipc.open_file(source).read_all()


def _read_ragged(folder: Path, name: str) -> RaggedArray:
    offsets = np.load(_offsets_file(folder, name), mmap_mode="r")
    values = _map(_values_file(folder, name), _TYPES.get(name, np.int32))
    return RaggedArray(values, np.asarray(offsets))


def _map(path: Path, kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the numbers in a file, mapped into memory."""
    if path.stat().st_size == 0:  # it cannot be mapped
        return np.empty(0, kind)
    return np.asarray(np.memmap(path, kind, mode="r"))


def _values_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.values"


def _offsets_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.offsets.npy"


def _join(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return the arrays of all parts as one, and free them."""
    joined: npt.NDArray[Any] = np.concatenate(parts)
    parts.clear()
    return joined
