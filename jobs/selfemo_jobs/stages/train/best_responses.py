"""The responder's best responses, which it imitates.

Of each kept group the response with the highest reward is imitated: that which the judge read most
surely as the intended emotions. A response with a fault is left out. Reward-ranked fine-tuning does
the same (RAFT, Dong et al. 2023, arXiv 2304.06767). That it joins SELF-GRPO is ours.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.spec import Role
from selfemo_jobs.stages.train.collected_rows import CollectedRows, read_collected

_FILE = "best-responses.arrow"
_COLUMNS = ("group_id", "member", "reward", "prompt_ids", "completion_ids")


class BestResponses(CollectedRows):
    """Collects the best responses of scored tables, in the order of their groups."""

    def __init__(self) -> None:
        # a group may be in several tables
        super().__init__(_FILE, lambda table: _best_of(_responses_of(table)), _best_of)


def read_best_responses(folder: Path) -> list[tuple[list[int], list[int]]]:
    """Return the token ids of the prompt and of the response of each best response in a folder.

    Parameters
    ----------
    folder
        The folder of :meth:`BestResponses.write`. Without its file there are none.
    """
    return [(row["prompt_ids"], row["completion_ids"]) for row in read_collected(folder, _FILE)]


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
