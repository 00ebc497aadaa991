"""The rollouts of a table, and the messages about bad rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.jobs.stages.train.kept_tables import consensus_of, kept_table

from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.train.rollout_data import (
    RolloutData,
    add_imitation_rows,
    training_columns,
)


@pytest.fixture(scope="module")
def table(tiny_model: Path) -> Any:
    return training_columns([kept_table(tiny_model, 5, 3)])


def changed(table: Any, row: int, **values: Any) -> Any:
    rows = table.to_pylist()
    rows[row] |= values
    return pa.Table.from_pylist(rows, schema=table.schema)


def test_rows_are_sorted_whatever_their_order(table: Any) -> None:
    shuffled = table.take(list(reversed(range(len(table)))))
    assert training_columns([shuffled.slice(0, 7), shuffled.slice(7)]).equals(table)
    rows = RolloutData.from_table(table, 1024)
    assert len(rows) == 15
    assert rows.groups == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14]]
    assert rows.prompts[4].tolist() == table["prompt_ids"][4].as_py()
    assert rows.completions[14].tolist() == table["completion_ids"][14].as_py()
    assert rows.logprobs[7].tolist() == pytest.approx(table["logprobs"][7].as_py())


def test_each_recognizer_group_gets_an_answer_to_imitate(table: Any) -> None:
    rows = RolloutData.from_table(table)
    longer = add_imitation_rows(rows, consensus_of(table, rows), lambda labels: [len(labels), 5, 6])
    expected = [[0, 1, 2, 15], [3, 4, 5], [6, 7, 8, 16], [9, 10, 11], [12, 13, 14, 17]]
    assert [list(group) for group in longer.groups] == expected
    assert longer.groups[1:3] == expected[1:3]
    assert longer.imitated.tolist() == [False] * 15 + [True] * 3
    assert longer.prompts[16].tolist() == rows.prompts[6].tolist()
    assert longer.completions[17].tolist() == [1, 5, 6]
    assert longer.logprobs[15].tolist() == [0.0] * 3
    assert longer.advantages.tolist() == [*rows.advantages.tolist(), 0.0, 0.0, 0.0]
    assert longer.completions[4].tolist() == rows.completions[4].tolist()
    for name in ("prompts", "completions", "logprobs"):
        array = getattr(longer, name)
        assert array.values.dtype == getattr(rows, name).values.dtype
        for row in range(18):
            of_row = array.values[array.offsets[row] : array.offsets[row + 1]]
            assert of_row.tolist() == array[row].tolist()
            assert array.lengths[row] == len(of_row)


def test_the_answer_to_imitate_names_all_labels_of_the_consensus(table: Any) -> None:
    several = changed(table, 0, consensus=["joy", "surprise"])
    answers: list[list[str]] = []

    def encode(labels: Sequence[str]) -> list[int]:
        answers.append(list(labels))
        return [7] * len(answers)

    rows = RolloutData.from_table(several)
    longer = add_imitation_rows(rows, consensus_of(several, rows), encode)
    assert answers == [["joy", "surprise"], ["joy"]], "equal answers are encoded once"
    assert [longer.completions[row].tolist() for row in range(15, 18)] == [[7], [7, 7], [7, 7]]


def test_without_tables_there_are_no_rows() -> None:
    assert training_columns([]).num_rows == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"logprobs": [-1.0]}, "different lengths"),
        ({"advantage": float("nan")}, "`advantage` is not finite"),
        ({"prompt_ids": []}, "`prompt_ids` is empty"),
        ({"prompt_ids": [7]}, "mixes prompts"),
        ({"role": "Critic"}, "mixes roles"),
        ({"completion_ids": [5000], "logprobs": [-1.0]}, "`completion_ids` has a token"),
        ({"completion_ids": [1024], "logprobs": [-1.0]}, "`completion_ids` has a token"),
        ({"completion_ids": [-5], "logprobs": [-1.0]}, "`completion_ids` has a token"),
        ({"completion_ids": [5], "logprobs": [float("-inf")]}, "`logprobs` is not finite"),
    ],
)
def test_the_error_about_a_bad_row_names_it(
    table: Any, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=rf"group g0001 member 1: .*{message}"):
        RolloutData.from_table(changed(table, 4, **values), 1024)


def test_a_completion_may_have_the_last_token_of_the_vocabulary(table: Any) -> None:
    rows = RolloutData.from_table(changed(table, 4, completion_ids=[1023], logprobs=[-1.0]), 1024)
    assert rows.completions[4].tolist() == [1023]


def test_a_completion_may_be_empty(table: Any) -> None:
    rows = RolloutData.from_table(changed(table, 4, completion_ids=[], logprobs=[]), 1024)
    assert rows.completions.lengths[4] == 0
