"""Limits on the number of groups of each emotion. Pure.

A group may have several emotions: its *set*. It counts for each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selfemo_jobs.stages.flywheel.balance_cap import balance_cap, exact_share

#: The emotions of a group, in the order of the label set.
EmotionSet = tuple[str, ...]


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


def within_limits(
    groups: Sequence[RankedGroup], limits: Mapping[str, int]
) -> npt.NDArray[np.bool_]:
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
    >>> within_limits(groups, {"joy": 2, "fear": 2}).tolist()
    [True, False, True]
    """
    return _visit(groups, _visiting_order(groups), limits)


def within_share(
    groups: Sequence[RankedGroup], max_share: float
) -> tuple[npt.NDArray[np.bool_], int]:
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
    >>> stays, cap = within_share(groups, max_share=0.5)
    >>> stays.tolist(), cap
    ([False, False, True], 1)
    """
    counts = _emotions_of(groups)
    order, share = _visiting_order(groups), exact_share(max_share)
    cap = balance_cap(counts, max_share)
    while True:
        stays = _visit(groups, order, dict.fromkeys(counts, cap))
        kept = _emotions_of([g for g, stay in zip(groups, stays, strict=True) if stay])
        allowed = share * sum(kept.values())
        if max(kept.values(), default=0) <= allowed:
            return stays, cap
        cap = min(cap - 1, int(allowed))


def _visit(
    groups: Sequence[RankedGroup], order: Sequence[int], limits: Mapping[str, int]
) -> npt.NDArray[np.bool_]:
    stays = np.zeros(len(groups), np.bool_)
    room = {**dict.fromkeys(_emotions_of(groups), len(groups)), **limits}
    for index in order:
        emotions = groups[index].emotions
        if all(room[emotion] > 0 for emotion in emotions):
            stays[index] = True
            for emotion in emotions:
                room[emotion] -= 1
    return stays


def _visiting_order(groups: Sequence[RankedGroup]) -> list[int]:
    """Return the indices of the groups in the order of :func:`within_limits`."""
    sizes = Counter(group.emotions for group in groups)
    counts = count_emotions(sizes)
    rarest = {emotions: min(counts[emotion] for emotion in emotions) for emotions in sizes}

    def place(index: int) -> tuple[int, float, int, str]:
        group = groups[index]
        position = (2 * group.rank - 1) / sizes[group.emotions]
        return rarest[group.emotions], position, group.tie, group.group_id

    return sorted(range(len(groups)), key=place)


def _emotions_of(groups: Sequence[RankedGroup]) -> dict[str, int]:
    return count_emotions(Counter(group.emotions for group in groups))
