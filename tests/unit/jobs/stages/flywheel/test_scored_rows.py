"""Tests of reading the scored candidates."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from selfemo_api.spec import StorageSpec
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.stages.flywheel.scored_rows import ScoredRows


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "runs {a,b} [1] *?"
    folder.mkdir()
    path = folder / "part 1%20.parquet"
    pq.write_table(SCORED.empty_table(), path)
    rows = ScoredRows([str(path)], "0" * 64, StorageSpec(uri="file:///runs"))
    assert rows.read().column_names == SCORED.names
    assert rows.read().count_rows() == 0
