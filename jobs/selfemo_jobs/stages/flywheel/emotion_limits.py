"""Limits on the number of groups of each emotion. Pure.

A group may have several emotions: its *set*. It counts for each of them. The groups are columns:
as objects, a hundred million candidates would take five gigabytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selfemo_jobs.stages.flywheel.balance_cap import balance_cap, exact_share

#: The emotions of a group, in the order of the label set.
EmotionSet = tuple[str, ...]
#: The number of groups that are visited as Python numbers at a time.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class RankedGroup:
    """What the limits know of a group."""

    emotions: EmotionSet
    """The emotions, at least one."""
    rank: int
    """The place among the groups with the same emotions, by reliability, from 1."""
    tie: int
    """Orders groups that are equal otherwise; see
    :func:`selfemo_jobs.stages.flywheel.filters.tie_breaker`."""
    group_id: str
    """The id of the group."""


@dataclass(frozen=True)
class RankedGroups:
    """What the limits know of several groups, in columns."""

    sets: tuple[EmotionSet, ...]
    """The distinct sets of emotions."""
    codes: npt.NDArray[np.int32]
    """Shape (groups,): the index of each group's set in ``sets``."""
    ranks: npt.NDArray[np.int64]
    """Shape (groups,), see :class:`RankedGroup`; as ``ties``."""
    ties: npt.NDArray[np.uint64]
    group_ids: pa.Array
    """The id of each group, a string with 64-bit offsets."""

    @classmethod
    def of(cls, groups: Iterable[RankedGroup]) -> Self:
        """Return some groups in columns."""
        rows = list(groups)
        sets = {emotions: i for i, emotions in enumerate(dict.fromkeys(g.emotions for g in rows))}
        return cls(
            tuple(sets),
            np.array([sets[group.emotions] for group in rows], np.int32),
            np.array([group.rank for group in rows], np.int64),
            np.array([group.tie for group in rows], np.uint64),
            pa.array([group.group_id for group in rows], pa.large_string()),
        )

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.codes)

    def count_sets(self, chosen: npt.NDArray[np.bool_] | None = None) -> dict[EmotionSet, int]:
        """Return the number of groups of each set that a group has.

        Parameters
        ----------
        chosen
            Booleans of shape (groups,): the groups that count. None: all.
        """
        codes = self.codes if chosen is None else self.codes[chosen]
        counts = np.bincount(codes, minlength=len(self.sets)).tolist()
        return {emotions: n for emotions, n in zip(self.sets, counts, strict=True) if n}


def count_emotions(sets: Mapping[EmotionSet, int]) -> dict[str, int]:
    """Return the number of groups that have each emotion.

    Parameters
    ----------
    sets
        Number of groups of each set.

    Returns
    -------
    dict of str to int
        A group with several emotions counts for each of them.

    Examples
    --------
    >>> count_emotions({("joy",): 3, ("joy", "surprise"): 2})
    {'joy': 5, 'surprise': 2}
    """
    counts: Counter[str] = Counter()
    for emotions, n in sets.items():
        for emotion in emotions:
            counts[emotion] += n
    return dict(counts)


def within_limits(groups: RankedGroups, limits: Mapping[str, int]) -> npt.NDArray[np.bool_]:
    """Return which groups stay if each emotion has a limit.

    The groups are visited in an order. A group stays if none of its emotions has reached its limit,
    and then counts for all of them. The order is:

    1. Groups whose rarest emotion is rarer come first. A frequent emotion therefore does not crowd
       out a rare one that occurs beside it.
    2. Of these, groups come first that rank higher among the groups of their own set, relative to
       the number of these. Sets with the same rarest emotion therefore lose similar shares,
       although groups with several emotions are less reliable on average.

    Parameters
    ----------
    groups
        The groups of one role.
    limits
        Largest number of groups of each emotion. An emotion that is missing has no limit.

    Returns
    -------
    numpy.ndarray
        Booleans of shape (groups,). No emotion has more groups than its limit. If each group has
        one emotion, the groups whose rank is at most the limit stay.

    Notes
    -----
    Ours. Iterative stratification also begins with the rarest label (Sechidis et al. 2011, "On the
    Stratification of Multi-label Data").

    Examples
    --------
    >>> groups = [
    ...     RankedGroup(("joy",), 1, 0, "a"),
    ...     RankedGroup(("joy",), 2, 0, "b"),
    ...     RankedGroup(("joy", "fear"), 1, 0, "c"),
    ... ]
    >>> within_limits(RankedGroups.of(groups), {"joy": 2, "fear": 2}).tolist()
    [True, False, True]
    """
    return _visit(groups, _visiting_order(groups), limits)


def within_share(groups: RankedGroups, max_share: float) -> tuple[npt.NDArray[np.bool_], int]:
    """Return which groups stay under the balance cap, and the cap.

    Parameters
    ----------
    groups
        The groups of one role.
    max_share
        Largest share of one emotion among all emotions of the groups that stay, above 0 and at most
        1. A group with two emotions counts as one of each.

    Returns
    -------
    stays : numpy.ndarray
        Booleans of shape (groups,).
    cap : int
        Number of groups of one emotion that may stay. It is
        :func:`~selfemo_jobs.stages.flywheel.balance_cap.balance_cap` of the emotions' counts, or
        less if groups with several emotions do not leave enough groups of the others.

    Notes
    -----
    Ours.

    Examples
    --------
    >>> groups = [
    ...     RankedGroup(("joy",), 1, 0, "a"),
    ...     RankedGroup(("joy",), 2, 0, "b"),
    ...     RankedGroup(("joy", "fear"), 1, 0, "c"),
    ... ]
    >>> stays, cap = within_share(RankedGroups.of(groups), max_share=0.5)
    >>> stays.tolist(), cap
    ([False, False, True], 1)
    """
    counts = count_emotions(groups.count_sets())
    order, share = _visiting_order(groups), exact_share(max_share)
    cap = balance_cap(counts, max_share)
    while True:
        stays = _visit(groups, order, dict.fromkeys(counts, cap))
        kept = count_emotions(groups.count_sets(stays))
        allowed = share * sum(kept.values())
        if max(kept.values(), default=0) <= allowed:
            return stays, cap
        cap = min(cap - 1, int(allowed))


def _visit(
    groups: RankedGroups, order: npt.NDArray[np.int64], limits: Mapping[str, int]
) -> npt.NDArray[np.bool_]:
    stays = np.zeros(len(groups), np.bool_)
    room = {**dict.fromkeys(count_emotions(groups.count_sets()), len(groups)), **limits}
    # whether there is room for each emotion of a set
    fits = [all(room[emotion] > 0 for emotion in emotions) for emotions in groups.sets]
    for start in range(0, len(order), _BLOCK):
        indices = order[start : start + _BLOCK]
        for index, code in zip(indices.tolist(), groups.codes[indices].tolist(), strict=True):
            if not fits[code]:
                continue
            stays[index] = True
            for emotion in groups.sets[code]:
                room[emotion] -= 1
                if room[emotion] == 0:
                    fits = [
                        fit and emotion not in emotions
                        for fit, emotions in zip(fits, groups.sets, strict=True)
                    ]
        if not any(fits):
            break
    return stays


def _visiting_order(groups: RankedGroups) -> npt.NDArray[np.int64]:
    """Return the indices of the groups in the order of :func:`within_limits`."""
    counts = count_emotions(groups.count_sets())
    codes = groups.codes
    sizes = np.bincount(codes, minlength=len(groups.sets))
    rarest = np.array(
        [min(counts[emotion] for emotion in emotions) for emotions in groups.sets], np.int64
    )[codes]
    position = (2 * groups.ranks - 1) / sizes[codes]
    keys = (groups.ties, position, rarest)  # the last one counts first
    order: npt.NDArray[np.int64] = np.lexsort(keys)
    same = [key[order[1:]] == key[order[:-1]] for key in keys]
    if np.logical_and.reduce(same).any():  # the id decides
        ids = pc.rank(groups.group_ids, tiebreaker="first").to_numpy()
        order = np.lexsort((ids, *keys))
    return order
