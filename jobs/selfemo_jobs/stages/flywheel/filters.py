"""The flywheel as a dataframe program: which groups are fed back into training.

It decides on one light row a group and touches the wide columns only in streams. The same program
runs in this process or on a Ray cluster (:mod:`selfemo_jobs.stages.flywheel.dataframe_runner`).
All decisions are made on integers (millionths) and on ids, so that neither the order of rows nor
the number of machines can change them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import daft
from daft import DataFrame, Window, col, lit
from daft import functions as F  # noqa: N812 (the name its own documentation uses)

from selfemo_api.spec import FlywheelSpec, Role
from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.flywheel.balance import balance_cap
from selfemo_jobs.stages.flywheel.dataframe_runner import materialize
from selfemo_jobs.stages.flywheel.dedup import near_duplicates

#: Rewards and consistencies are compared in millionths: sums of integers are the same in any
#: order, and a float32 0.3 meets a threshold of 0.3.
MILLION = 1_000_000

#: The columns of one row a group, see :func:`summarize`.
GROUP_COLUMNS = (
    "group_id",
    "role",
    "label",
    "generation",
    "rows",
    "content",
    "reward",
    "best",
    "confidence",
    "consistency",
    "varies",
    "sure",
)


@dataclass(frozen=True)
class Selection:
    """What the filters left."""

    groups: DataFrame
    """One row a kept group: :data:`GROUP_COLUMNS`."""
    total_groups: int
    total_rows: int
    funnel: list[dict[str, Any]]
    """A line for each filter: groups and rows before and after."""
    caps: dict[str, int]
    """Groups of one emotion that the balance cap allows, by role."""


@dataclass
class _Funnel:
    groups: int
    rows: int
    lines: list[dict[str, Any]] = field(default_factory=list)

    def record(self, name: str, left: DataFrame) -> None:
        groups, rows = tally(left)
        self.lines.append(
            {
                "filter": name,
                "before": self.groups,
                "after": groups,
                "rowsBefore": self.rows,
                "rowsAfter": rows,
            }
        )
        self.groups, self.rows = groups, rows


def millionths(value: float) -> int:
    """Return a threshold in the unit that it is compared in."""
    return round(value * MILLION)


def tally(groups: DataFrame) -> tuple[int, int]:
    """Return the numbers of groups and of their rows."""
    counted = groups.agg(
        F.count(col("group_id")).alias("groups"), F.sum(col("rows")).alias("rows")
    ).to_pydict()
    return int(counted["groups"][0]), int(counted["rows"][0] or 0)


def summarize(rows: DataFrame) -> DataFrame:
    """Return one light row a group.

    Parameters
    ----------
    rows
        Candidates with the columns of :data:`selfemo_jobs.runtime.schemas.SCORED`.

    Returns
    -------
    DataFrame
        ``group_id``, ``role``, ``label`` (first emotion of the consensus, null where there is
        none), ``generation``, ``rows``, ``content`` (64-bit hash of role, prompt and the multiset
        of completions), ``reward`` (sum, millionths), ``best`` (largest reward), ``confidence`` and
        ``consistency`` (millionths), ``varies`` (whether an advantage differs from 0), ``sure``
        (whether gold labels say what is true).

    Raises
    ------
    BadInput
        If a reward, advantage or consistency is not a finite number.
    """
    broken = _not_finite("reward") | _not_finite("advantage")
    broken = broken | _not_finite("confidence") | _not_finite("consistency")
    completion = F.hash(col("completion_ids"))
    light = rows.select(
        col("group_id"),
        col("role"),
        col("consensus").get(0).alias("label"),
        col("generation"),
        F.hash(col("prompt_ids")).alias("prompt"),
        # sums of hashes are equal for equal multisets, and need no list in memory
        F.bitwise_and(completion, _u64(0xFFFFFFFF)).alias("low"),
        F.shift_right(completion, _u64(32)).alias("high"),
        _scaled("reward", broken).alias("micro"),
        col("reward"),
        _scaled("confidence", broken).alias("confidence"),
        _scaled("consistency", broken).alias("consistency"),
        col("gold").not_null().alias("sure"),
        (col("advantage") != 0.0).alias("varies"),
        broken.alias("broken"),
    )
    groups = light.groupby("group_id").agg(
        F.min(col("role")).alias("role"),
        F.min(col("label")).alias("label"),
        F.min(col("generation")).alias("generation"),
        F.count(col("group_id")).cast("int64").alias("rows"),
        F.min(col("prompt")).alias("prompt"),
        F.sum(col("low")).alias("low"),
        F.sum(col("high")).alias("high"),
        F.sum(col("micro")).alias("micro"),
        F.max(col("reward")).alias("best"),
        F.min(col("confidence")).alias("confidence"),
        F.min(col("consistency")).alias("consistency"),
        F.bool_or(col("varies")).alias("varies"),
        F.bool_or(col("sure")).alias("sure"),
        F.bool_or(col("broken")).alias("broken"),
    )
    content = F.hash(col("role"), col("prompt"), col("low"), col("high"), col("rows"))
    found = materialize(groups.with_columns({"content": content, "reward": col("micro")}))
    _refuse_broken(found)
    return found.select(*GROUP_COLUMNS).collect()


def select_groups(
    rows: DataFrame, spec: FlywheelSpec, seed: int, *, imitates: bool = False
) -> Selection:
    """Return the groups that pass all filters, cheapest first.

    What gold labels say needs no agreement: such a group passes the filters of reliability.

    Parameters
    ----------
    rows
        The candidates of this generation, see :func:`summarize`; read twice.
    spec
        ``spec.flywheel``.
    seed
        Breaks ties of the balance cap.
    imitates
        Whether training imitates what recognizer groups agree on: then such a group teaches
        something even where all its candidates fare alike.
    """
    everything = groups = summarize(rows)
    total, total_rows = tally(groups)
    funnel = _Funnel(total, total_rows)
    teaches = col("varies")
    if imitates:
        teaches = teaches | (col("role") == Role.RECOGNIZER.value)
    groups = groups.where(teaches & col("label").not_null()).collect()
    funnel.record("zeroVariance", groups)
    low, high = millionths(spec.consistency.min), millionths(spec.consistency.max)
    within = (col("consistency") >= low) & (col("consistency") <= high)
    groups = groups.where(within | col("sure")).collect()
    funnel.record("consistency", groups)
    enough = col("reward") >= lit(millionths(spec.min_reward)) * col("rows")
    groups = groups.where(enough | col("sure")).collect()
    funnel.record("minReward", groups)
    if spec.deduplicate.exact:
        groups = _drop_copies(groups)
    funnel.record("exactDuplicates", groups)
    if spec.deduplicate.near:
        copies = near_duplicates(best_responses(rows, groups), spec.deduplicate.threshold)
        groups = materialize(groups.join(copies, on="group_id", how="anti"))
    funnel.record("nearDuplicates", groups)
    groups = keep_best(groups, spec.keep, seed, expected=_quotas(everything, spec))
    funnel.record("keep", groups)
    groups, caps = balance(groups, spec.max_share, seed)
    funnel.record("balance", groups)
    return Selection(groups, total, total_rows, funnel.lines, caps)


def best_responses(rows: DataFrame, groups: DataFrame) -> DataFrame:
    """Return ``group_id, text`` of the responder groups' best response; the first among equals."""
    responders = groups.where(col("role") == Role.RESPONDER.value).select("group_id", "best")
    best = (
        rows.select("group_id", "role", "member", "reward", "completion")
        .where(col("role") == Role.RESPONDER.value)
        .join(responders, on="group_id")
        .where(col("reward") >= col("best"))
    )
    # the smallest of "<member, ten digits><text>" is the text of the smallest member
    marked = F.concat(F.lpad(col("member").cast("string"), 10, "0"), col("completion"))
    first = best.groupby("group_id").agg(F.min(marked).alias("marked"))
    return first.select(col("group_id"), F.substr(col("marked"), 10).alias("text"))


def keep_best(
    groups: DataFrame, share: float, seed: int, *, expected: Mapping[str, int] | None = None
) -> DataFrame:
    """Return the most reliable share of each role's and emotion's groups, rounded up.

    What gold labels say is all kept, and not counted.

    Parameters
    ----------
    groups
        See :func:`summarize`.
    share
        Of an emotion's groups.
    seed
        Breaks ties.
    expected
        How many groups of the recognizer each emotion would have (millionths): the share is of
        these then. None: of those that are there.
    """
    if share == 1.0 and expected is None:
        return groups
    doubtful = groups.where(~col("sure"))
    most: dict[str, list[Any]] = {"role": [], "label": [], "most": []}
    for role, sizes in _sizes(doubtful).items():
        of_role = (expected or {}) if role == Role.RECOGNIZER.value else {}
        for label, n in sizes.items():
            size = of_role.get(label, n * MILLION)
            most["role"].append(role)
            most["label"].append(label)
            most["most"].append(math.ceil(share * size / MILLION - 1e-9))
    if not most["role"]:
        return groups
    ranked = _ranked(doubtful, seed).join(daft.from_pydict(most), on=["role", "label"])
    best = ranked.where(col("rank") <= col("most")).select(*GROUP_COLUMNS)
    return materialize(best.concat(groups.where(col("sure"))))


def _quotas(groups: DataFrame, spec: FlywheelSpec) -> dict[str, int] | None:
    """Return how many of the recognizer's groups each emotion is expected to have, in millionths.

    Of all that were played without gold labels, filtered or not.
    """
    if spec.label_prior is None:
        return None
    played = groups.where((col("role") == Role.RECOGNIZER.value) & ~col("sure")).count_rows()
    return {label: millionths(share) * played for label, share in spec.label_prior.items()}


def balance(groups: DataFrame, max_share: float, seed: int) -> tuple[DataFrame, dict[str, int]]:
    """Return the groups under the balance cap of their role, and the caps.

    The most reliable groups stay.
    """
    counts = _sizes(groups)
    caps = {role: balance_cap(counts[role], max_share) for role in sorted(counts)}
    left = _ranked(groups, seed).where(_within(caps)).select(*GROUP_COLUMNS)
    return materialize(left), caps


def _sizes(groups: DataFrame) -> dict[str, dict[str, int]]:
    """Return the number of groups of each role and emotion."""
    counted = groups.groupby("role", "label").agg(F.count(col("group_id")).alias("n")).to_pydict()
    sizes: dict[str, dict[str, int]] = {}
    for role, label, n in zip(counted["role"], counted["label"], counted["n"], strict=True):
        sizes.setdefault(role, {})[label] = n
    return sizes


def _ranked(groups: DataFrame, seed: int) -> DataFrame:
    """Return the groups with their ``rank`` among those of their role and emotion, from 1.

    By confidence times consistency times mean reward; ties go by a hash of seed and id.
    """
    score = col("confidence") * col("consistency") / MILLION * col("reward") / col("rows")
    ranked = groups.with_columns({"score": score, "tie": _tie(seed)})
    order = Window().partition_by("role", "label")
    order = order.order_by("score", "tie", "group_id", desc=[True, False, False])
    return ranked.with_column("rank", F.row_number().over(order))


def choose_replay(earlier: DataFrame, present: DataFrame, quota: int, seed: int) -> DataFrame:
    """Return at most ``quota`` groups of an earlier flywheel that are not already present.

    Newest generation first, then by a hash of seed and id. A group is present if its id is, or one
    with the same role, prompt and completions.

    Parameters
    ----------
    earlier
        One row a group, as :func:`summarize` gives.
    present
        Columns ``group_id`` and ``content``.
    quota
        Groups, at least 1.
    """
    fresh = _drop_copies(earlier)
    fresh = fresh.join(present.select("group_id"), on="group_id", how="anti")
    fresh = fresh.join(present.select("content"), on="content", how="anti")
    ordered = fresh.with_column("tie", _tie(seed)).sort(
        ["generation", "tie", "group_id"], desc=[True, False, False]
    )
    return materialize(ordered.limit(quota).select(*GROUP_COLUMNS))


def label_counts(groups: DataFrame) -> dict[str, int]:
    """Return the number of groups by emotion, sorted by name."""
    counted = groups.groupby("label").agg(F.count(col("group_id")).alias("n")).to_pydict()
    return dict(sorted(zip(counted["label"], counted["n"], strict=True)))


def _drop_copies(groups: DataFrame) -> DataFrame:
    """Return the groups without exact copies: of each content the smallest id stays."""
    first = groups.groupby("content").agg(F.min(col("group_id")).alias("group_id"))
    return materialize(groups.join(first.select("group_id"), on="group_id", how="semi"))


def _within(caps: Mapping[str, int]) -> Any:
    allowed = lit(False)
    for role, cap in caps.items():
        allowed = allowed | ((col("role") == role) & (col("rank") <= cap))
    return allowed


def _tie(seed: int) -> Any:
    return F.hash(F.concat(lit(f"{seed}/"), col("group_id")))


def _u64(value: int) -> Any:
    return lit(value).cast("uint64")


def _not_finite(name: str) -> Any:
    return F.is_nan(col(name)) | F.is_inf(col(name))


def _scaled(name: str, broken: Any) -> Any:
    whole = (col(name).cast("float64") * MILLION).round().cast("int64")
    return F.when(broken, lit(0).cast("int64")).otherwise(whole)


def _refuse_broken(groups: DataFrame) -> None:
    broken = groups.where(col("broken")).agg(F.min(col("group_id")).alias("group_id")).to_pydict()
    if broken["group_id"][0] is not None:
        raise BadInput(
            f"group {broken['group_id'][0]}: a reward, advantage or consistency is not a finite "
            "number: run the Score stage again"
        )
