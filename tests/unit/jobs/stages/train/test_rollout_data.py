"""What was recorded is checked before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.jobs.stages.train.kept import kept_table

from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train.rollout_data import kept_columns, recorded, with_answers


@pytest.fixture(scope="module")
def table(tiny_model: Path) -> Any:
    return kept_columns([kept_table(tiny_model, 5, 3)])


def changed(table: Any, row: int, **values: Any) -> Any:
    rows = table.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_rows_come_sorted_whatever_their_order(table: Any) -> None:
    shuffled = table.take(list(reversed(range(len(table)))))
    assert kept_columns([shuffled.slice(0, 7), shuffled.slice(7)]).equals(table)
    rows = recorded(table, 1024)
    assert len(rows) == 15
    assert rows.groups == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14]]
    assert rows.prompts[4].tolist() == table["prompt_ids"][4].as_py()
    assert rows.completions[14].tolist() == table["completion_ids"][14].as_py()
    assert rows.logprobs[7].tolist() == pytest.approx(table["logprobs"][7].as_py())


def test_answers_join_the_recognizers_groups(table: Any) -> None:
    rows = recorded(table)
    longer = with_answers(rows, table, lambda labels: [len(labels), 5, 6])
    assert longer.groups == [[0, 1, 2, 15], [3, 4, 5], [6, 7, 8, 16], [9, 10, 11], [12, 13, 14, 17]]
    assert longer.imitated.tolist() == [False] * 15 + [True] * 3
    assert longer.prompts[16].tolist() == rows.prompts[6].tolist()
    assert longer.completions[17].tolist() == [1, 5, 6]
    assert longer.logprobs[15].tolist() == [0.0] * 3
    assert longer.advantages.tolist() == [*rows.advantages.tolist(), 0.0, 0.0, 0.0]
    assert longer.completions[4].tolist() == rows.completions[4].tolist()


def test_no_rows() -> None:
    assert kept_columns([]).num_rows == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"logprobs": [-1.0]}, "different lengths"),
        ({"advantage": float("nan")}, "`advantage` is not finite"),
        ({"prompt_ids": []}, "`prompt_ids` is empty"),
        ({"prompt_ids": [7]}, "mixes prompts"),
        ({"role": "Nobody"}, "mixes roles"),
        ({"completion_ids": [5000], "logprobs": [-1.0]}, "`completion_ids` has a token"),
        ({"completion_ids": [-5], "logprobs": [-1.0]}, "`completion_ids` has a token"),
        ({"completion_ids": [5], "logprobs": [float("-inf")]}, "`logprobs` is not finite"),
    ],
)
def test_a_bad_row_is_named(table: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=rf"group g0001 member 1: .*{message}"):
        recorded(changed(table, 4, **values), 1024)


def test_a_completion_may_be_empty(table: Any) -> None:
    rows = recorded(changed(table, 4, completion_ids=[], logprobs=[]), 1024)
    assert rows.completions.lengths[4] == 0
