"""The responder's best responses, which it imitates.

Of each kept group the response with the highest reward is imitated: that which the judge read most
surely as the intended emotions. A response with a fault is left out. Reward-ranked fine-tuning does
the same (RAFT, Dong et al. 2023, arXiv 2304.06767). That it joins SELF-GRPO is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.spec import Role
from selfemo_jobs.store.local_files import translated_errors

_FILE = "best-responses.arrow"
_COLUMNS = ("group_id", "member", "reward", "prompt_ids", "completion_ids")


class BestResponses:
    """Collects the best responses of scored tables while something else reads these tables."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []

    def collected(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield the tables, and collect their best responses.

        Parameters
        ----------
        tables
            Tables with the columns of :data:`selfemo_jobs.runtime.schemas.SCORED`.
        """
        for table in tables:
            self._parts.append(_best_of(_responses_of(table)))
            yield table

    def write(self, folder: Path) -> None:
        """Write the collected responses, in the order of their groups.

        Parameters
        ----------
        folder
            The folder of the rows to train on.
        """
        table = _best_of(pa.concat_tables(self._parts)).combine_chunks()
        with translated_errors(folder), pa.ipc.new_file(str(folder / _FILE), table.schema) as file:
            file.write_table(table)


def read_best_responses(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Return the token ids of the prompt and of the response of each best response in a folder.

    Parameters
    ----------
    folder
        The folder of :meth:`BestResponses.write`. Without its file there are none.
    """
    if not (folder / _FILE).is_file():
        return []
    with pa.memory_map(str(folder / _FILE)) as source:
        rows = pa.ipc.open_file(source).read_all().to_pylist()
    return [(row["prompt_ids"], row["completion_ids"]) for row in rows]


def _responses_of(table: pa.Table) -> pa.Table:
    """Return the responder's rows without a fault."""
    chosen = pc.and_(
        pc.equal(table["role"], Role.RESPONDER.value),
        pc.and_(pc.equal(table["penalty"], 0.0), pc.greater(table["format"], 0.0)),
    )
    return table.filter(chosen).select(_COLUMNS)


def _best_of(table: pa.Table) -> pa.Table:
    """Return the row with the highest reward of each group. Equal rewards: the first member."""
    order = [("group_id", "ascending"), ("reward", "descending"), ("member", "ascending")]
    ordered = table.sort_by(order).combine_chunks()
    groups = ordered["group_id"].to_pylist()
    firsts = [i for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
    return ordered.take(pa.array(firsts, pa.int64()))
