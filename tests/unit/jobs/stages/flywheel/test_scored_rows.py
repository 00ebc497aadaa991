"""Tests of reading the scored candidates."""

from __future__ import annotations

import itertools
from pathlib import Path

import daft
import pyarrow.parquet as pq
import pytest
from tests.unit.jobs.stages.flywheel.candidates import Group, table

from selfemo_api.spec import StorageSpec
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.stages.flywheel import scored_rows
from selfemo_jobs.stages.flywheel.group_table import summarize_groups, summarize_portions
from selfemo_jobs.stages.flywheel.scored_rows import ScoredRows


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "runs {a,b} [1] *?"
    folder.mkdir()
    path = folder / "part 1%20.parquet"
    pq.write_table(SCORED.empty_table(), path)
    rows = ScoredRows([str(path)], "0" * 64, StorageSpec(uri="file:///runs"))
    assert rows.read().column_names == SCORED.names
    assert rows.read().count_rows() == 0


def test_portions_are_whole_files_and_have_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scored_rows, "PORTION_ROWS", 4)
    paths = []
    for index, count in enumerate((1, 1, 2, 1)):  # two rows for each group
        rows = table([Group(f"{index}{number}") for number in range(count)])
        paths.append(str(tmp_path / f"part-{index}.parquet"))
        pq.write_table(rows, paths[-1])
    read = ScoredRows(paths, "0" * 64, StorageSpec(uri="file:///runs"))
    portions = [portion.to_pydict()["group_id"] for portion in read.portions()]
    assert [len(set(ids)) for ids in portions] == [2, 2, 1]
    assert [i for ids in portions for i in ids] == read.read().to_pydict()["group_id"]


def test_without_files_there_is_one_empty_portion() -> None:
    (portion,) = ScoredRows([], "0" * 64, StorageSpec(uri="file:///runs")).portions()
    assert portion.count_rows() == 0


def test_the_group_table_does_not_depend_on_the_portions() -> None:
    rows = table([Group(f"g{number}", rewards=(0.1, 0.2, 0.3)) for number in range(6)])
    whole = daft.from_arrow(rows)
    expected = summarize_groups(whole).sort("group_id").to_pydict()
    assert expected["rows"] == [3] * 6
    for cuts in ((9,), (3, 12), (10,), (1, 2, 17)):  # the last two divide groups
        bounds = [0, *cuts, len(rows)]
        pieces = [daft.from_arrow(rows.slice(a, b - a)) for a, b in itertools.pairwise(bounds)]
        assert summarize_portions(whole, pieces).sort("group_id").to_pydict() == expected
