"""Replay: groups of earlier generations that are trained on again."""

from __future__ import annotations

from daft import DataFrame, col

from selfemo_jobs.stages.flywheel.dataframe_runner import materialize
from selfemo_jobs.stages.flywheel.emotion_filters import tie_breaker
from selfemo_jobs.stages.flywheel.filters import exact_duplicate_filter
from selfemo_jobs.stages.flywheel.group_table import GROUP_COLUMNS


def choose_replay(
    earlier: DataFrame, present: DataFrame, quota: int, seed: int, *, most_rows: int
) -> DataFrame:
    """Return groups of an earlier flywheel that are not present yet.

    The newest generation comes first. Groups of one generation are ordered by a hash of the seed
    and the id. A group is present if its id is, or if an equal group is (the same role, prompt and
    completions).

    Parameters
    ----------
    earlier
        The group table of the earlier flywheel's result.
    present
        Columns ``group_id`` and ``content`` of the groups that are already chosen.
    quota
        Largest number of groups to return, 1 or more.
    seed
        The seed of the stage.
    most_rows
        Largest number of candidates of a group that the training can hold. Earlier generations may
        have had larger groups.

    Returns
    -------
    DataFrame
        A group table.
    """
    absent = exact_duplicate_filter(earlier.where(col("rows") <= most_rows))
    absent = absent.join(present.select("group_id"), on="group_id", how="anti")
    absent = absent.join(present.select("content"), on="content", how="anti")
    ordered = absent.with_column("tie", tie_breaker(seed)).sort(
        ["generation", "tie", "group_id"], desc=[True, False, False]
    )
    return materialize(ordered.limit(quota).select(*GROUP_COLUMNS))
