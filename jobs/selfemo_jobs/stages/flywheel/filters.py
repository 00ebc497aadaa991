"""The filters of the flywheel, in the order in which :func:`select_groups` applies them.

======================  ===================================  ==========================
Name in the funnel      Function                             Field of ``spec.flywheel``
======================  ===================================  ==========================
``zeroVariance``        :func:`zero_variance_filter`
``consistency``         :func:`consistency_filter`           ``consistency``
``minReward``           :func:`min_reward_filter`            ``minReward``
``exactDuplicates``     :func:`exact_duplicate_filter`       ``deduplicate.exact``
``nearDuplicates``      :func:`near_duplicate_filter`        ``deduplicate.near``
``keep``                :func:`keep_share_filter`            ``keep``, ``labelPrior``
``balance``             :func:`balance_filter`               ``maxShare``
======================  ===================================  ==========================

Replay (``flywheel.replay``) is in :mod:`selfemo_jobs.stages.flywheel.replay`.

Each filter takes a group table (:mod:`selfemo_jobs.stages.flywheel.group_table`) and returns the
rows that stay. The same filters run in this process or on a Ray cluster
(:mod:`selfemo_jobs.stages.flywheel.dataframe_runner`). Groups with gold labels need no agreement:
they pass the filters ``consistency``, ``minReward`` and ``keep``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import daft
from daft import DataFrame, Window, col, lit
from daft import functions as F  # noqa: N812 (the name its own documentation uses)

from selfemo_api.spec import Band, FlywheelSpec, Role
from selfemo_jobs.stages.flywheel.balance_cap import balance_cap
from selfemo_jobs.stages.flywheel.dataframe_runner import materialize
from selfemo_jobs.stages.flywheel.group_table import (
    GROUP_COLUMNS,
    MILLION,
    count_by_role_and_label,
    count_groups,
    summarize_groups,
    to_millionths,
)
from selfemo_jobs.stages.flywheel.near_duplicates import near_duplicates


@dataclass(frozen=True)
class Selection:
    """The groups that passed all filters."""

    groups: DataFrame
    """The group table of the kept groups."""
    total_groups: int
    """Number of groups before the filters."""
    total_rows: int
    """Number of candidates before the filters."""
    funnel: list[dict[str, Any]]
    """One entry for each filter, with the groups and candidates before and after it."""
    caps: dict[str, int]
    """For each role, the number of groups of one emotion that the balance cap allows."""


@dataclass
class _Funnel:
    """Records the numbers of groups and candidates after each filter."""

    groups: int
    rows: int
    entries: list[dict[str, Any]] = field(default_factory=list)

    def record(self, name: str, remaining: DataFrame) -> None:
        groups, rows = count_groups(remaining)
        self.entries.append(
            {
                "filter": name,
                "before": self.groups,
                "after": groups,
                "rowsBefore": self.rows,
                "rowsAfter": rows,
            }
        )
        self.groups, self.rows = groups, rows


def select_groups(
    rows: DataFrame,
    spec: FlywheelSpec,
    seed: int,
    *,
    label_prior: Mapping[str, float] | None = None,
    imitation: bool = False,
) -> Selection:
    """Return the groups that pass all filters. The cheapest filters come first.

    Parameters
    ----------
    rows
        The candidates of this generation, with the columns of
        :data:`selfemo_jobs.runtime.schemas.SCORED`. They are read twice.
    spec
        The field ``spec.flywheel``.
    seed
        The seed that orders groups of equal reliability.
    label_prior
        The share of each emotion that ``keep`` refers to. None: it refers to the groups that have
        the emotion.
    imitation
        Whether training imitates the consensus of recognizer groups (``training.imitation`` above
        0). Such a group is useful even if all its candidates have the same reward.

    Returns
    -------
    Selection
        The kept groups, and the funnel.

    Raises
    ------
    BadInput
        If a reward, advantage, confidence or consistency is not a finite number.
    """
    all_groups = groups = summarize_groups(rows)
    total_groups, total_rows = count_groups(groups)
    funnel = _Funnel(total_groups, total_rows)
    groups = zero_variance_filter(groups, imitation=imitation)
    funnel.record("zeroVariance", groups)
    groups = consistency_filter(groups, spec.consistency)
    funnel.record("consistency", groups)
    groups = min_reward_filter(groups, spec.min_reward)
    funnel.record("minReward", groups)
    if spec.deduplicate.exact:
        groups = exact_duplicate_filter(groups)
    funnel.record("exactDuplicates", groups)
    if spec.deduplicate.near:
        groups = near_duplicate_filter(groups, rows, spec.deduplicate.threshold)
    funnel.record("nearDuplicates", groups)
    expected = _expected_groups(all_groups, label_prior)
    groups = keep_share_filter(groups, spec.keep, seed, expected=expected)
    funnel.record("keep", groups)
    groups, caps = balance_filter(groups, spec.max_share, seed)
    funnel.record("balance", groups)
    return Selection(groups, total_groups, total_rows, funnel.entries, caps)


def zero_variance_filter(groups: DataFrame, *, imitation: bool) -> DataFrame:
    """Return the groups that training can learn from.

    A group needs an emotion, and candidates with different rewards.

    Parameters
    ----------
    groups
        A group table.
    imitation
        Whether recognizer groups pass without different rewards, because training imitates their
        consensus.

    Returns
    -------
    DataFrame
        The groups that stay.
    """
    useful = col("has_variance")
    if imitation:
        useful = useful | (col("role") == Role.RECOGNIZER.value)
    return groups.where(useful & col("label").not_null()).collect()


def consistency_filter(groups: DataFrame, band: Band) -> DataFrame:
    """Return the groups whose consistency is within the band, and all with gold labels.

    Parameters
    ----------
    groups
        A group table.
    band
        The field ``spec.flywheel.consistency``. Both bounds belong to the band.

    Returns
    -------
    DataFrame
        The groups that stay.
    """
    low, high = to_millionths(band.min), to_millionths(band.max)
    within = (col("consistency") >= low) & (col("consistency") <= high)
    return groups.where(within | col("labeled")).collect()


def min_reward_filter(groups: DataFrame, min_reward: float) -> DataFrame:
    """Return the groups whose mean reward is high enough, and all with gold labels.

    Parameters
    ----------
    groups
        A group table.
    min_reward
        The smallest mean reward that passes.

    Returns
    -------
    DataFrame
        The groups that stay.
    """
    enough = col("reward") >= lit(to_millionths(min_reward)) * col("rows")
    return groups.where(enough | col("labeled")).collect()


def exact_duplicate_filter(groups: DataFrame) -> DataFrame:
    """Return one group for each distinct content (role, prompt and completions).

    Parameters
    ----------
    groups
        A group table.

    Returns
    -------
    DataFrame
        The groups that stay: of equal groups the one with the smallest id.
    """
    first = groups.groupby("content").agg(F.min(col("group_id")).alias("group_id"))
    return materialize(groups.join(first.select("group_id"), on="group_id", how="semi"))


def near_duplicate_filter(groups: DataFrame, rows: DataFrame, threshold: float) -> DataFrame:
    """Return the groups without responder groups whose best response nearly repeats another.

    Parameters
    ----------
    groups
        A group table.
    rows
        The candidates of this generation, for the texts of the responses.
    threshold
        Jaccard similarity from which two responses count as near duplicates, above 0 and at most 1.

    Returns
    -------
    DataFrame
        The groups that stay; all recognizer groups do.
    """
    duplicates = near_duplicates(best_responses(rows, groups), threshold)
    return materialize(groups.join(duplicates, on="group_id", how="anti"))


def best_responses(rows: DataFrame, groups: DataFrame) -> DataFrame:
    """Return the response with the largest reward of each responder group.

    Parameters
    ----------
    rows
        The candidates of this generation.
    groups
        A group table.

    Returns
    -------
    DataFrame
        Columns ``group_id`` and ``text``. Of several best responses it is the first member's.
    """
    responders = groups.where(col("role") == Role.RESPONDER.value)
    best = (
        rows.select("group_id", "role", "member", "reward", "completion")
        .where(col("role") == Role.RESPONDER.value)
        .join(responders.select("group_id", "best_reward"), on="group_id")
        .where(col("reward") >= col("best_reward"))
    )
    # the smallest of "<member, ten digits><text>" is the text of the smallest member
    marked = F.concat(F.lpad(col("member").cast("string"), 10, "0"), col("completion"))
    first = best.groupby("group_id").agg(F.min(marked).alias("marked"))
    return first.select(col("group_id"), F.substr(col("marked"), 10).alias("text"))


def keep_share_filter(
    groups: DataFrame, share: float, seed: int, *, expected: Mapping[str, int] | None = None
) -> DataFrame:
    """Return the most reliable share of the groups of each role and emotion.

    Groups with gold labels all stay and are not counted.

    Parameters
    ----------
    groups
        A group table.
    share
        The share of an emotion's groups that stays, from 0 to 1. The number is rounded up.
    seed
        The seed that orders groups of equal reliability.
    expected
        For each emotion, the number of recognizer groups (in millionths) that the share refers to.
        With None the share refers to the groups that are present.

    Returns
    -------
    DataFrame
        The groups that stay.
    """
    if share == 1.0 and expected is None:
        return groups
    unlabeled = groups.where(~col("labeled"))
    limits: dict[str, list[Any]] = {"role": [], "label": [], "limit": []}
    for role, counts in count_by_role_and_label(unlabeled).items():
        of_role = (expected or {}) if role == Role.RECOGNIZER.value else {}
        for label, n in counts.items():
            size = of_role.get(label, n * MILLION)
            limits["role"].append(role)
            limits["label"].append(label)
            limits["limit"].append(math.ceil(share * size / MILLION - 1e-9))
    if not limits["role"]:
        return groups
    ranked = _rank(unlabeled, seed).join(daft.from_pydict(limits), on=["role", "label"])
    best = ranked.where(col("rank") <= col("limit")).select(*GROUP_COLUMNS)
    return materialize(best.concat(groups.where(col("labeled"))))


def balance_filter(
    groups: DataFrame, max_share: float, seed: int
) -> tuple[DataFrame, dict[str, int]]:
    """Return the groups under the balance cap of their role, and the caps.

    Of each emotion the most reliable groups stay.

    Parameters
    ----------
    groups
        A group table.
    max_share
        The largest share that one emotion may have of the kept groups of a role.
    seed
        The seed that orders groups of equal reliability.

    Returns
    -------
    groups : DataFrame
        The groups that stay.
    caps : dict of str to int
        For each role, the number of groups of one emotion that may stay.
    """
    counts = count_by_role_and_label(groups)
    caps = {role: balance_cap(counts[role], max_share) for role in sorted(counts)}
    under_cap = lit(False)
    for role, cap in caps.items():
        under_cap = under_cap | ((col("role") == role) & (col("rank") <= cap))
    return materialize(_rank(groups, seed).where(under_cap).select(*GROUP_COLUMNS)), caps


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


def _expected_groups(
    groups: DataFrame, label_prior: Mapping[str, float] | None
) -> dict[str, int] | None:
    """Return the number of recognizer groups of each emotion by the label prior, in millionths.

    The shares of the prior refer to all unlabeled recognizer groups of self-play, also to those
    that a filter removed. None without a prior.
    """
    if label_prior is None:
        return None
    recognizer = groups.where((col("role") == Role.RECOGNIZER.value) & ~col("labeled"))
    count = recognizer.count_rows()
    return {label: to_millionths(share) * count for label, share in label_prior.items()}


def _rank(groups: DataFrame, seed: int) -> DataFrame:
    """Return the groups with their ``rank`` among those of their role and emotion, from 1.

    The order is by reliability: confidence times consistency times mean reward.
    """
    score = col("confidence") * col("consistency") / MILLION * col("reward") / col("rows")
    scored = groups.with_columns({"score": score, "tie": tie_breaker(seed)})
    order = Window().partition_by("role", "label")
    order = order.order_by("score", "tie", "group_id", desc=[True, False, False])
    return scored.with_column("rank", F.row_number().over(order))
