"""The filters that count groups by emotion: ``keep`` with the label prior, and ``balance``.

Groups are ranked among those of their role that have the same set of emotions. A group with several
emotions is less reliable on average than one with a single emotion, since more has to agree. If
both competed, the sets would disappear from training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import daft
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from daft import DataFrame, Window, col, lit
from daft import functions as F  # noqa: N812 (the name its own documentation uses)

from selfemo_api.spec import Role
from selfemo_jobs.stages.flywheel.balance_cap import balance_cap
from selfemo_jobs.stages.flywheel.dataframe_runner import materialize
from selfemo_jobs.stages.flywheel.emotion_limits import (
    EmotionSet,
    RankedGroups,
    count_emotions,
    within_limits,
    within_share,
)
from selfemo_jobs.stages.flywheel.group_table import (
    GROUP_COLUMNS,
    MILLION,
    count_by_role_and_set,
    join_emotions,
    split_emotions,
    to_millionths,
)


def keep_share_filter(
    groups: DataFrame, share: float, seed: int, *, expected: Mapping[str, int] | None = None
) -> DataFrame:
    """Return the most reliable share of the groups of each role and set of emotions.

    Groups with gold labels all stay and are not counted.

    Parameters
    ----------
    groups
        A group table.
    share
        The share of the groups of a set that stays, from 0 to 1. The number is rounded up.
    seed
        The seed that orders groups of equal reliability.
    expected
        For each emotion, the number of recognizer groups (in millionths) that the share refers to:
        see :func:`expected_groups`. With None the share refers to the groups that are present.

    Returns
    -------
    DataFrame
        The groups that stay. With ``expected`` no emotion has more recognizer groups than its
        share, rounded up.
    """
    if share == 1.0 and expected is None:
        return groups
    unlabeled = groups.where(~col("labeled"))
    ranked = _rank(unlabeled, seed)
    best = [groups.where(col("labeled"))]
    for role, sets in sorted(count_by_role_and_set(unlabeled).items()):
        of_role = ranked.where(col("role") == role)
        if expected is None or role != Role.RECOGNIZER.value:
            limits = {emotions: _rounded_up(share, n * MILLION) for emotions, n in sets.items()}
            best.append(_best_of_each_set(of_role, limits))
            continue
        quotas = {
            emotion: _rounded_up(share, expected.get(emotion, n * MILLION))
            for emotion, n in count_emotions(sets).items()
        }
        if _one_emotion_each(sets):
            limits = {(emotion,): quota for emotion, quota in quotas.items()}
            best.append(_best_of_each_set(of_role, limits))
        else:
            members = _collect(of_role)
            best.append(_choose(of_role, members, within_limits(members, quotas)))
    return materialize(_concatenate(best))


def balance_filter(
    groups: DataFrame, max_share: float, seed: int
) -> tuple[DataFrame, dict[str, int]]:
    """Return the groups under the balance cap of their role, and the caps.

    Of each set of emotions the most reliable groups stay.

    Parameters
    ----------
    groups
        A group table.
    max_share
        The largest share that one emotion may have of all emotions of the kept groups of a role.
    seed
        The seed that orders groups of equal reliability.

    Returns
    -------
    groups : DataFrame
        The groups that stay.
    caps : dict of str to int
        For each role, the number of groups of one emotion that may stay.
    """
    ranked = _rank(groups, seed)
    caps: dict[str, int] = {}
    best = []
    for role, sets in sorted(count_by_role_and_set(groups).items()):
        of_role = ranked.where(col("role") == role)
        if _one_emotion_each(sets):
            caps[role] = balance_cap(count_emotions(sets), max_share)
            best.append(of_role.where(col("rank") <= caps[role]).select(*GROUP_COLUMNS))
        else:
            members = _collect(of_role)
            stays, caps[role] = within_share(members, max_share)
            best.append(_choose(of_role, members, stays))
    return materialize(_concatenate(best)) if best else groups, caps


def expected_groups(
    groups: DataFrame, label_prior: Mapping[str, float] | None
) -> dict[str, int] | None:
    """Return the number of recognizer groups of each emotion by the label prior.

    The prior has the share of each emotion among all labels. So its shares refer to the labels of
    all unlabeled recognizer groups that were scored, also of those that a filter removed. Groups
    whose vote has no result are not scored: `keep` is a share of the groups that could be kept. A
    group with two emotions has two labels, and a group without a consensus counts as one.

    Parameters
    ----------
    groups
        The group table before all filters.
    label_prior
        The share of each emotion, in any unit, or None.

    Returns
    -------
    dict of str to int or None
        The number for each emotion, in millionths. None without a prior.
    """
    if label_prior is None:
        return None
    unlabeled = groups.where((col("role") == Role.RECOGNIZER.value) & ~col("labeled"))
    sets = count_by_role_and_set(unlabeled).get(Role.RECOGNIZER.value, {})
    labels = sum(n * max(1, len(emotions)) for emotions, n in sets.items())
    total = sum(label_prior.values())
    return {
        emotion: to_millionths(share / total) * labels for emotion, share in label_prior.items()
    }


def tie_breaker(seed: int) -> Any:
    """Return the expression that orders groups which are equal otherwise.

    Parameters
    ----------
    seed
        The seed of the stage.

    Returns
    -------
    daft.Expression
        A hash of the seed and the group's id.
    """
    return F.hash(F.concat(lit(f"{seed}/"), col("group_id")))


def _rank(groups: DataFrame, seed: int) -> DataFrame:
    """Return the groups with their ``rank`` among those of their role and emotions, from 1.

    The order is by reliability ``s * r``: ``r`` is the mean reward, and ``s`` is confidence times
    consistency, or 2 minus that if ``r`` is below 0. So each of the three raises the rank.
    """
    sureness = col("confidence") * col("consistency") / MILLION
    factor = F.when(col("reward") < 0, lit(2.0 * MILLION) - sureness).otherwise(sureness)
    score = factor * col("reward") / col("rows")
    scored = groups.with_columns({"score": score, "tie": tie_breaker(seed)})
    order = Window().partition_by("role", "emotions")
    order = order.order_by("score", "tie", "group_id", desc=[True, False, False])
    return scored.with_column("rank", F.row_number().over(order))


def _best_of_each_set(ranked: DataFrame, limits: Mapping[EmotionSet, int]) -> DataFrame:
    """Return the groups whose rank is at most the limit of their set of emotions."""
    table = {
        "emotions": [join_emotions(emotions) for emotions in limits],
        "limit": list(limits.values()),
    }
    joined = ranked.join(daft.from_pydict(table), on="emotions")
    return joined.where(col("rank") <= col("limit")).select(*GROUP_COLUMNS)


def _collect(ranked: DataFrame) -> RankedGroups:
    """Return the groups of one role on this machine: some forty bytes for each."""
    table = ranked.select("emotions", "rank", "tie", "group_id").to_arrow()
    emotions = table["emotions"].combine_chunks().dictionary_encode()
    return RankedGroups(
        tuple(split_emotions(text) for text in emotions.dictionary.to_pylist()),
        emotions.indices.to_numpy().astype(np.int32),
        table["rank"].to_numpy().astype(np.int64),
        table["tie"].to_numpy().astype(np.uint64),
        table["group_id"].cast(pa.large_string()).combine_chunks(),
    )


def _choose(ranked: DataFrame, members: RankedGroups, stays: npt.NDArray[np.bool_]) -> DataFrame:
    """Return the groups that stay."""
    ids = members.group_ids.filter(pa.array(stays))
    if not len(ids):
        return ranked.limit(0).select(*GROUP_COLUMNS)
    chosen = daft.from_arrow(pa.table({"group_id": ids}))
    return ranked.join(chosen, on="group_id", how="semi").select(*GROUP_COLUMNS)


def _concatenate(frames: Iterable[DataFrame]) -> DataFrame:
    first, *others = frames
    for frame in others:
        first = first.concat(frame)
    return first


def _one_emotion_each(sets: Iterable[EmotionSet]) -> bool:
    return all(len(emotions) == 1 for emotions in sets)


def _rounded_up(share: float, size: int) -> int:
    """Return a share of a size in millionths, rounded up to a number of groups."""
    return math.ceil(share * size / MILLION - 1e-9)
