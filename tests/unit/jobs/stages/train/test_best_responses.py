"""The responses that the responder imitates: which ones, and in which rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tests.unit.jobs.stages.train.kept_tables import consensus_of, kept_table

from selfemo_jobs.stages.train.best_responses import BestResponses, read_best_responses
from selfemo_jobs.stages.train.rollout_data import (
    RolloutData,
    add_imitation_rows,
    add_response_rows,
    training_columns,
)
from selfemo_jobs.stages.train.rollout_files import read_responses, write_responses


def changed(model: Path, changes: dict[tuple[str, int], dict[str, Any]]) -> pa.Table:
    """Return the rows of three groups of three, some of them changed. `g0001` is a responder's."""
    table = kept_table(model, 3, 3)
    rows = [
        row | {"penalty": 0.0, "format": 1.0} | changes.get((row["group_id"], row["member"]), {})
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows, table.schema)


def best_of(folder: Path, *tables: pa.Table) -> list[list[int]]:
    """Return the completions that are collected from some tables."""
    best = BestResponses(folder / "scratch")
    assert [t.num_rows for t in best.collected(tables)] == [t.num_rows for t in tables]
    best.write(folder)
    assert not list((folder / "scratch").iterdir())
    return [completion for _, completion in read_best_responses(folder)]


def member(table: pa.Table, number: int) -> list[int]:
    """Return the completion of a member of the responder's group."""
    rows = [r for r in table.to_pylist() if (r["group_id"], r["member"]) == ("g0001", number)]
    completion: list[int] = rows[0]["completion_ids"]
    return completion


def test_the_response_with_the_highest_reward_is_imitated(tiny_model: Path, tmp_path: Path) -> None:
    rewards = {("g0001", n): {"reward": reward} for n, reward in enumerate([0.2, 0.9, 0.9])}
    table = changed(tiny_model, rewards)
    assert best_of(tmp_path, table) == [member(table, 1)]
    parts = table.take([5, 4]), table.take([3])  # in parts, and in any order
    assert best_of(tmp_path, *parts) == [member(table, 1)]


def test_the_best_responses_are_read_in_the_order_of_their_groups(
    tiny_model: Path, tmp_path: Path
) -> None:
    table = changed(tiny_model, {("g0001", 2): {"reward": 99.0}})
    later = [
        row | {"group_id": "g0000", "completion_ids": [5]}
        for row in table.to_pylist()
        if (row["group_id"], row["member"]) == ("g0001", 0)
    ]
    tables = table, pa.Table.from_pylist(later, table.schema), table.slice(0, 3)
    assert best_of(tmp_path, *tables) == [[5], member(table, 2)]


def test_a_response_with_a_fault_is_not_imitated(tiny_model: Path, tmp_path: Path) -> None:
    table = changed(
        tiny_model,
        {
            ("g0001", 0): {"reward": 0.1},
            ("g0001", 1): {"reward": 0.9, "penalty": 0.5},
            ("g0001", 2): {"reward": 0.8, "format": 0.0},
        },
    )
    assert best_of(tmp_path, table) == [member(table, 0)]
    faulty = {("g0001", n): {"penalty": 0.5} for n in range(3)}
    assert best_of(tmp_path, changed(tiny_model, faulty)) == []


def test_without_collected_responses_there_are_none(tmp_path: Path) -> None:
    assert list(read_best_responses(tmp_path)) == []


def test_each_imitated_response_is_a_group_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    table = training_columns([kept_table(tiny_model, 4, 2)])
    rollouts = RolloutData.from_table(table)
    answers = add_imitation_rows(rollouts, consensus_of(table, rollouts), lambda _: [5])
    assert not answers.responses
    write_responses([([1, 2], [3, 4, 5]), ([6], [7])], tmp_path)
    added = add_response_rows(answers, *read_responses(tmp_path))
    assert list(added.responses) == [len(answers), len(answers) + 1]
    assert added.groups[-2:] == [[len(answers)], [len(answers) + 1]]
    assert added.prompts[len(answers)].tolist() == [1, 2]
    assert added.completions[len(answers)].tolist() == [3, 4, 5]
    assert added.imitated[added.responses].all()
    assert not added.advantages[added.responses].any()
    assert np.array_equal(added.advantages[: len(answers)], answers.advantages)
    assert added.completions[len(answers) + 1].tolist() == [7]
    write_responses([], tmp_path)
    none = add_response_rows(answers, *read_responses(tmp_path))
    assert none.responses == range(len(answers), len(answers))
