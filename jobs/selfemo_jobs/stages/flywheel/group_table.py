"""The group table: one small row for each group, on which all filters decide.

Rewards, confidences and consistencies are stored in millionths. Sums of integers are the same in
any order, so neither the order of rows nor the number of machines changes a decision. A float32
reward of 0.3 also equals a threshold of 0.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

import numpy as np
from daft import DataFrame, col, lit
from daft import functions as F  # noqa: N812 (the name its own documentation uses)

from selfemo_jobs.errors import BadRows
from selfemo_jobs.stages.flywheel.dataframe_runner import materialize
from selfemo_jobs.stages.flywheel.emotion_limits import EmotionSet

MILLION = 1_000_000
#: Separates the emotions of a group in the column ``emotions``. No label has a comma.
_SEPARATOR = ","

#: The columns of the group table; :func:`summarize_groups` describes them.
GROUP_COLUMNS = (
    "group_id",
    "role",
    "emotions",
    "generation",
    "rows",
    "content",
    "reward",
    "best_reward",
    "confidence",
    "consistency",
    "has_variance",
    "labeled",
)


def to_millionths(value: float) -> int:
    """Return a threshold in the unit of the group table.

    Parameters
    ----------
    value
        A reward, confidence, consistency or share.

    Returns
    -------
    int
        The value in millionths, rounded.

    Examples
    --------
    >>> to_millionths(0.3)
    300000
    """
    return round(value * MILLION)


def count_groups(groups: DataFrame) -> tuple[int, int]:
    """Return the number of groups, and the number of their candidates.

    Parameters
    ----------
    groups
        A group table.

    Returns
    -------
    groups : int
        Number of rows of the table.
    rows : int
        Sum of the column ``rows``.
    """
    counts = groups.agg(
        F.count(col("group_id")).alias("groups"), F.sum(col("rows")).alias("rows")
    ).to_pydict()
    return int(counts["groups"][0]), int(counts["rows"][0] or 0)


def join_emotions(emotions: EmotionSet) -> str:
    """Return the value of the column ``emotions`` for a set.

    Parameters
    ----------
    emotions
        The emotions, at least one.

    Examples
    --------
    >>> join_emotions(("joy", "surprise"))
    'joy,surprise'
    """
    return _SEPARATOR.join(emotions)


def split_emotions(emotions: str | None) -> EmotionSet:
    """Return the set of emotions in a value of the column ``emotions``.

    Parameters
    ----------
    emotions
        The value, or None for a group without a consensus.

    Examples
    --------
    >>> split_emotions("joy,surprise")
    ('joy', 'surprise')
    """
    return tuple(emotions.split(_SEPARATOR)) if emotions else ()


def count_by_role_and_set(groups: DataFrame) -> dict[str, dict[EmotionSet, int]]:
    """Return the number of groups of each role and set of emotions.

    Parameters
    ----------
    groups
        A group table.

    Returns
    -------
    dict of str to dict
        For each role, the number of groups of each set. The set of groups without a consensus is
        empty.
    """
    counts = groups.groupby("role", "emotions").agg(F.count(col("group_id")).alias("n")).to_pydict()
    by_role: dict[str, dict[EmotionSet, int]] = {}
    for role, emotions, n in zip(counts["role"], counts["emotions"], counts["n"], strict=True):
        by_role.setdefault(role, {})[split_emotions(emotions)] = n
    return by_role


def summarize_groups(rows: DataFrame) -> DataFrame:
    """Return the group table of some candidates.

    Parameters
    ----------
    rows
        Candidates with the columns of :data:`selfemo_jobs.runtime.schemas.SCORED`.

    Returns
    -------
    DataFrame
        One row for each group with these columns:

        - ``group_id``, ``role`` and ``generation``
        - ``emotions``: the emotions of the consensus, separated by commas, or null if there is
          none; see :func:`split_emotions`
        - ``rows``: the number of candidates
        - ``content``: a 64-bit hash of the role, the prompt and the completions in any order
        - ``reward``: the sum of the rewards, in millionths
        - ``best_reward``: the largest reward
        - ``confidence`` and ``consistency``, in millionths
        - ``has_variance``: whether an advantage differs from 0
        - ``labeled``: whether the group has gold labels

    Raises
    ------
    BadRows
        If a reward, advantage, confidence or consistency is not a finite number.
    """
    broken = _not_finite("reward") | _not_finite("advantage")
    broken = broken | _not_finite("confidence") | _not_finite("consistency")
    completion = F.hash(col("completion_ids"))
    narrow = rows.select(
        col("group_id"),
        col("role"),
        F.when(F.list_count(col("consensus")) > 0, F.list_join(col("consensus"), _SEPARATOR))
        .otherwise(lit(None).cast("string"))
        .alias("emotions"),
        col("generation"),
        F.hash(col("prompt_ids")).alias("prompt"),
        # the sum of hashes does not depend on the order of the completions, and needs no list
        F.bitwise_and(completion, _uint64(0xFFFFFFFF)).alias("low"),
        F.shift_right(completion, _uint64(32)).alias("high"),
        _in_millionths("reward", broken).alias("reward_millionths"),
        col("reward"),
        _in_millionths("confidence", broken).alias("confidence"),
        _in_millionths("consistency", broken).alias("consistency"),
        col("gold").not_null().alias("labeled"),
        (col("advantage") != 0.0).alias("has_variance"),
        broken.alias("broken"),
    )
    groups = narrow.groupby("group_id").agg(
        F.min(col("role")).alias("role"),
        F.min(col("emotions")).alias("emotions"),
        F.min(col("generation")).alias("generation"),
        F.count(col("group_id")).cast("int64").alias("rows"),
        F.min(col("prompt")).alias("prompt"),
        F.sum(col("low")).alias("low"),
        F.sum(col("high")).alias("high"),
        F.sum(col("reward_millionths")).alias("reward_millionths"),
        F.max(col("reward")).alias("best_reward"),
        F.min(col("confidence")).alias("confidence"),
        F.min(col("consistency")).alias("consistency"),
        F.bool_or(col("has_variance")).alias("has_variance"),
        F.bool_or(col("labeled")).alias("labeled"),
        F.bool_or(col("broken")).alias("broken"),
    )
    content = F.hash(col("role"), col("prompt"), col("low"), col("high"), col("rows"))
    groups = groups.with_columns({"content": content, "reward": col("reward_millionths")})
    table = materialize(groups)
    _refuse_broken(table)
    return table.select(*GROUP_COLUMNS).collect()


def summarize_portions(rows: DataFrame, portions: Iterable[DataFrame]) -> DataFrame:
    """Return the group table of candidates, which are summarized portion by portion.

    The table of a portion is complete before the next portion is read. Grouping all candidates at
    once would take three times the memory of the table.

    Parameters
    ----------
    rows
        All candidates. They are read only if the rows of a group are in several portions.
    portions
        The same candidates in several frames.

    Returns
    -------
    DataFrame
        The columns of :func:`summarize_groups`.

    Raises
    ------
    BadRows
        As :func:`summarize_groups`.
    """
    tables = [summarize_groups(portion) for portion in portions]
    if len(tables) == 1:
        return tables[0]
    groups = reduce(DataFrame.concat, tables)
    return summarize_groups(rows) if _has_repeated_id(groups) else materialize(groups)


def _has_repeated_id(groups: DataFrame) -> bool:
    """Return whether two rows have the same hash of their ids: eight bytes for each."""
    hashes = groups.select(F.hash(col("group_id")).alias("hash")).to_arrow()["hash"].to_numpy()
    hashes = np.sort(hashes)
    return bool((hashes[1:] == hashes[:-1]).any())


def _uint64(value: int) -> Any:
    return lit(value).cast("uint64")


def _not_finite(name: str) -> Any:
    return F.is_nan(col(name)) | F.is_inf(col(name))


def _in_millionths(name: str, broken: Any) -> Any:
    """Return a column in millionths; 0 in rows that are refused later."""
    scaled = (col(name).cast("float64") * MILLION).round().cast("int64")
    return F.when(broken, lit(0).cast("int64")).otherwise(scaled)


def _refuse_broken(groups: DataFrame) -> None:
    broken = groups.where(col("broken")).agg(F.min(col("group_id")).alias("group_id")).to_pydict()
    if broken["group_id"][0] is not None:
        raise BadRows(
            f"group {broken['group_id'][0]}: a reward, advantage, confidence or consistency is not "
            "a finite number"
        )
