"""The responder's best responses, which it imitates.

Of each kept group the response with the highest reward is imitated: that which the judge read most
surely as the intended emotions. A response with a fault is left out. Reward-ranked fine-tuning does
the same (RAFT, Dong et al. 2023, arXiv 2304.06767). That it joins SELF-GRPO is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_api.spec import Role
from selfemo_jobs.stages.train.collected_rows import CollectedRows, read_collected

_FILE = "best-responses.arrow"
_COLUMNS = ("group_id", "prompt_ids", "completion_ids")
#: What the best of a group follows from. The ids of all groups together have 64-bit offsets.
_RANKS = pa.schema(
    [("group_id", pa.large_string()), ("reward", pa.float64()), ("member", pa.int64())]
)


class BestResponses(CollectedRows):
    """Collects the best responses of scored tables.

    Parameters
    ----------
    scratch
        See :class:`CollectedRows`.
    """

    file = _FILE

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._ranks: list[pa.Table] = []

    def choose(self, table: pa.Table) -> pa.Table:
        """Return the best response of each group in a table."""
        responses = _responses_of(table)
        best = responses.take(pa.array(np.flatnonzero(_is_best(responses))))
        self._ranks.append(best.select(_RANKS.names).cast(_RANKS))
        return best.select(_COLUMNS)

    def keep(self) -> npt.NDArray[np.bool_]:
        """Return which rows are the best of their group: a group may be in several tables."""
        return _is_best(pa.concat_tables(self._ranks))


def read_best_responses(folder: Path) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the token ids of the prompt and of the response of each best response in a folder.

    Parameters
    ----------
    folder
        The folder of :meth:`BestResponses.write`. Without its file there are none.
    """
    for row in read_collected(folder, _FILE):
        yield row["prompt_ids"], row["completion_ids"]


def _responses_of(table: pa.Table) -> pa.Table:
    """Return the responder's rows without a fault."""
    chosen = pc.and_(
        pc.equal(table["role"], Role.RESPONDER.value),
        pc.and_(pc.equal(table["penalty"], 0.0), pc.greater(table["format"], 0.0)),
    )
    return table.filter(chosen)


def _is_best(table: pa.Table) -> npt.NDArray[np.bool_]:
    """Return whether each row has the highest reward of its group. Equal ones: the first member."""
    order = [("group_id", "ascending"), ("reward", "descending"), ("member", "ascending")]
    places = pc.sort_indices(table, sort_keys=order)
    groups = table["group_id"].take(places).combine_chunks()
    best = np.ones(len(table), np.bool_)
    best[places.to_numpy()[1:]] = pc.not_equal(groups[1:], groups[:-1]).to_numpy(
        zero_copy_only=False
    )
    return best
