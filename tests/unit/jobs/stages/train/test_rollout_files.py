"""The rows of a training in files: equal to one sorted table, and of bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.jobs.stages.train.kept_tables import consensus_of, kept_table

from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train import rollout_files
from selfemo_jobs.stages.train.rollout_data import RolloutData, training_columns
from selfemo_jobs.stages.train.rollout_files import (
    read_consensus,
    read_rollouts,
    write_rollouts,
)


@pytest.fixture(scope="module")
def table(tiny_model: Path) -> Any:
    return kept_table(tiny_model, 7, 4)


def shuffled(table: Any, seed: int = 0) -> Any:
    return table.take(pa.array(np.random.default_rng(seed).permutation(len(table))))


@pytest.mark.parametrize("block", [1, 40, 1 << 20])
def test_equal_to_one_sorted_table(
    block: int, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_files, "_BLOCK", block)
    expected = RolloutData.from_table(training_columns([table]), 1024)
    # the parts of a flywheel are sorted by role first, so groups of several parts alternate
    parts = [table.filter(pa.compute.equal(table["role"], r)) for r in ("Responder", "Recognizer")]
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "of-a-killed-attempt").touch()
    assert write_rollouts([shuffled(part) for part in parts], folder, 1024) == 28
    assert not list(folder.glob("*killed*")) and not list(folder.glob("*.unsorted"))
    rows = read_rollouts(folder)
    for name in ("prompts", "completions", "logprobs"):
        for part in ("values", "offsets"):
            one, other = (getattr(getattr(data, name), part) for data in (rows, expected))
            assert one.dtype == other.dtype
            assert one.tolist() == other.tolist()
    assert rows.advantages.tolist() == expected.advantages.tolist()
    assert rows.imitated.tolist() == expected.imitated.tolist()
    assert [list(group) for group in rows.groups] == expected.groups
    consensus = consensus_of(training_columns([table]), expected)
    assert list(read_consensus(folder)) == consensus
    assert None in consensus


def test_a_group_may_be_in_several_parts(table: Any, tmp_path: Path) -> None:
    rows = shuffled(table)
    assert write_rollouts([rows.slice(0, 11), rows.slice(11)], tmp_path / "rows", None) == 28
    expected = RolloutData.from_table(training_columns([table]))
    stored = read_rollouts(tmp_path / "rows")
    assert [list(group) for group in stored.groups] == expected.groups
    assert stored.logprobs.values.tolist() == expected.logprobs.values.tolist()


@pytest.mark.parametrize("change", [{"role": "Responder"}, {"prompt_ids": [7]}])
def test_such_a_group_has_one_prompt_and_one_role(
    change: dict[str, Any], table: Any, tmp_path: Path
) -> None:
    rows = table.to_pylist()
    rows[2:4] = [row | change for row in rows[2:4]]
    parts = [pa.Table.from_pylist(some, schema=table.schema) for some in (rows[:2], rows[2:])]
    with pytest.raises(BadInput, match=r"^group g0000: the group mixes roles or prompts"):
        write_rollouts(parts, tmp_path / "rows", None)


def test_a_bad_row_is_refused(table: Any, tmp_path: Path) -> None:
    rows = table.to_pylist()
    rows[9]["completion_ids"] = [2000] * len(rows[9]["completion_ids"])
    parts = [table.slice(0, 4), pa.Table.from_pylist(rows[8:12], schema=table.schema)]
    with pytest.raises(BadInput, match=r"^group g0002 member 1: `completion_ids` has a token"):
        write_rollouts(parts, tmp_path / "rows", 1024)


def test_no_rows(table: Any, tmp_path: Path) -> None:
    assert write_rollouts([table.slice(0, 0)], tmp_path / "rows", None) == 0


def test_completions_may_all_be_empty(table: Any, tmp_path: Path) -> None:
    rows = [row | {"completion_ids": [], "logprobs": []} for row in table.to_pylist()]
    write_rollouts([pa.Table.from_pylist(rows, schema=table.schema)], tmp_path / "rows", None)
    assert read_rollouts(tmp_path / "rows").completions.values.size == 0


def wide_parts(table: Any, count: int) -> Iterator[Any]:
    """Yield parts with 64 groups of prompts of 2,000 tokens."""
    rows = table.slice(0, 4).take(pa.array(list(range(4)) * 64))
    names = rows.schema.names
    offsets = pa.array(np.arange(0, 256 * 2000 + 1, 2000, dtype=np.int32))
    for part in range(count):
        ids = pa.array([f"g{part:04d}/{row // 4:04d}" for row in range(256)])
        prompts = pa.ListArray.from_arrays(offsets, pa.array(np.full(256 * 2000, 5, np.int32)))
        wide = rows.set_column(names.index("group_id"), rows.schema.field("group_id"), ids)
        yield wide.set_column(names.index("prompt_ids"), rows.schema.field("prompt_ids"), prompts)


def test_memory_holds_one_part(table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompts of a part are 2 MB, and those of all parts 32 MB."""
    monkeypatch.setattr(rollout_files, "_BLOCK", 1 << 16)

    def peak(parts: int) -> float:
        pool = pa.default_memory_pool()
        before = arrow = pool.bytes_allocated()

        def counted() -> Iterator[Any]:
            nonlocal arrow
            for part in wide_parts(table, parts):
                yield part
                arrow = max(arrow, pool.bytes_allocated())

        tracemalloc.start()
        write_rollouts(counted(), tmp_path / "rows", None)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return (traced + arrow - before) / 2**20

    few, many = peak(2), peak(16)
    assert many < few + 6  # MiB; with all parts together, it is over 28 more

    tracemalloc.start()
    rows = read_rollouts(tmp_path / "rows")
    assert sum(int(rows.prompts[row][0]) for row in range(len(rows))) == 5 * 16 * 256
    assert tracemalloc.get_traced_memory()[1] < 4 << 20  # of 32 MB that are read
    tracemalloc.stop()
