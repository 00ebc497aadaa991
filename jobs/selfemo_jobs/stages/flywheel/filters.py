"""The filters of the flywheel, in the order in which :func:`select_groups` applies them.

======================  ===================================  ==========================
Name in the funnel      Function                             Field of ``spec.flywheel``
======================  ===================================  ==========================
``zeroVariance``        :func:`zero_variance_filter`
``consistency``         :func:`consistency_filter`           ``consistency``
``minReward``           :func:`min_reward_filter`            ``minReward``
``exactDuplicates``     :func:`exact_duplicate_filter`       ``deduplicate.exact``
``nearDuplicates``      :func:`near_duplicate_filter`        ``deduplicate.near``
``keep``                :func:`keep_share_filter`            ``keep``, ``useLabelPrior``
``balance``             :func:`balance_filter`               ``maxShare``
======================  ===================================  ==========================

``keep`` and ``balance`` are in :mod:`selfemo_jobs.stages.flywheel.emotion_filters`, and replay
(``flywheel.replay``) in :mod:`selfemo_jobs.stages.flywheel.replay`.

Each filter takes a group table (:mod:`selfemo_jobs.stages.flywheel.group_table`) and returns the
rows that stay. The same filters run in this process or on a Ray cluster
(:mod:`selfemo_jobs.stages.flywheel.dataframe_runner`). Groups with gold labels need no agreement:
they pass the filters ``consistency``, ``minReward`` and ``keep``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daft import DataFrame, col, lit
from daft import functions as F  # noqa: N812 (the name its own documentation uses)

from selfemo_api.spec import Band, FlywheelSpec, Role
from selfemo_jobs.stages.flywheel.dataframe_runner import materialize
from selfemo_jobs.stages.flywheel.emotion_filters import (
    balance_filter,
    expected_groups,
    keep_share_filter,
)
from selfemo_jobs.stages.flywheel.group_table import (
    count_groups,
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
    groups: DataFrame,
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
    groups
        The group table of the candidates.
    rows
        The candidates of this generation, with the columns of
        :data:`selfemo_jobs.runtime.schemas.SCORED`, for the texts of the responses.
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
    """
    # computed here, so that the table of all groups is not kept until `keep`
    expected = expected_groups(groups, label_prior)
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
    return groups.where(useful & col("emotions").not_null()).collect()


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

    Gold labels are a part of the content: short utterances of other dialogues have the same prompt,
    and other labels. A group without gold labels is equal to each group of the same content.

    Parameters
    ----------
    groups
        A group table.

    Returns
    -------
    DataFrame
        The groups that stay: of equal groups the one with gold labels, or with the smallest id.
    """
    labeled = groups.where(col("labeled"))
    others = groups.where(~col("labeled")).join(labeled.select("content"), on="content", how="anti")
    first = [
        equal.agg(F.min(col("group_id")).alias("group_id")).select("group_id")
        for equal in (labeled.groupby("content", "emotions"), others.groupby("content"))
    ]
    stays = first[0].concat(first[1])
    return materialize(groups.join(stays, on="group_id", how="semi"))


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
