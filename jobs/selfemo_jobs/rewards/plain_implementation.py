"""The equations of the rewards in plain Python, one group at a time.

Read this module to understand the equations. Tests and benchmarks compare the vectorized functions
with it. The product does not call it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

from selfemo_jobs.rewards.group_rewards import STD_FLOOR, RewardTerms

LabelSet = frozenset[str]


def smoothed_iou(a: LabelSet, b: LabelSet, s: float) -> float:
    """Return the smoothed IoU of two sets, and 0 if either is empty.

    Parameters
    ----------
    a, b
        Sets of label names.
    s
        The smoothing constant, 0 or more.

    Returns
    -------
    float
        A value from 0 to 1.

    Examples
    --------
    >>> smoothed_iou(frozenset({"joy"}), frozenset({"joy", "surprise"}), 0.0)
    0.5
    """
    if not a or not b:
        return 0.0
    intersection = len(a & b)
    return (intersection + s) / (len(a) + len(b) - intersection + s)


def soft_iou(p: Mapping[str, float], q: Mapping[str, float], s: float) -> float:
    """Return the smoothed IoU of two sets of shares, and 0 if all shares of either are 0.

    Parameters
    ----------
    p, q
        Share of each label by its name, 0 to 1. A missing label has the share 0.
    s
        The smoothing constant, 0 or more.

    Returns
    -------
    float
        A value from 0 to 1.

    Examples
    --------
    >>> soft_iou({"joy": 1.0}, {"joy": 0.75, "anger": 0.25}, 0.0)
    0.6
    """
    if not any(p.values()) or not any(q.values()):
        return 0.0
    names = {*p, *q}
    intersection = sum(min(p.get(e, 0.0), q.get(e, 0.0)) for e in names)
    union = sum(max(p.get(e, 0.0), q.get(e, 0.0)) for e in names)
    return (intersection + s) / (union + s)


def share_naming(sets: Sequence[LabelSet], label: str) -> float:
    """Return the share of the sets that contain a label.

    Parameters
    ----------
    sets
        Sets of label names.
    label
        The label to look for.

    Returns
    -------
    float
        A value from 0 to 1; 0 if `sets` is empty.

    Examples
    --------
    >>> share_naming([frozenset({"joy"}), frozenset({"anger"})], "joy")
    0.5
    """
    return [label in names for names in sets].count(True) / len(sets) if sets else 0.0


def share_naming_all(sets: Sequence[LabelSet], labels: LabelSet) -> float:
    """Return the share of the sets that contain all of some labels.

    Parameters
    ----------
    sets
        Sets of label names.
    labels
        The labels to look for.

    Returns
    -------
    float
        A value from 0 to 1; 0 if `sets` is empty.

    Examples
    --------
    >>> both = frozenset({"joy", "surprise"})
    >>> share_naming_all([both, frozenset({"joy"})], both)
    0.5
    """
    return [labels <= names for names in sets].count(True) / len(sets) if sets else 0.0


def consensus(
    members: Sequence[LabelSet],
    readings: Sequence[LabelSet],
    labels: Sequence[str],
    tau: float,
    judge_weight: float,
) -> LabelSet | None:
    """Return the emotions that reach the threshold, or None if the vote is empty or tied.

    Parameters
    ----------
    members
        The emotions that each member of the group names.
    readings
        The emotions that the judge names in each reading. Without readings the judge has no vote.
    labels
        The label set.
    tau
        The share of the votes that an emotion must reach.
    judge_weight
        The weight of the judge's readings, 0 to 1.

    Returns
    -------
    frozenset of str or None
        The consensus.

    Examples
    --------
    >>> joy, anger = frozenset({"joy"}), frozenset({"anger"})
    >>> consensus([joy, joy, joy, anger], [], ["joy", "anger", "fear"], 0.5, 0.5)
    frozenset({'joy'})
    >>> consensus([joy, joy, anger, anger], [], ["joy", "anger", "fear"], 0.5, 0.5) is None
    True
    """
    w = judge_weight if readings else 0.0
    outcome = frozenset(
        e
        for e in labels
        if (1 - w) * share_naming(members, e) + w * share_naming(readings, e) >= tau - 1e-9
    )
    if len(outcome) < 2:
        return outcome or None
    together = (1 - w) * share_naming_all(members, outcome)
    together += w * share_naming_all(readings, outcome)
    supported = together > tau + 1e-9 or together >= 1 - 1e-9
    return outcome if supported and len(outcome) < len(labels) else None


def mean_agreement(sets: Sequence[LabelSet], s: float) -> list[float]:
    """Return the mean smoothed IoU of each set with the other sets of its group.

    Parameters
    ----------
    sets
        The sets of one group, at least one.
    s
        The smoothing constant, 0 or more.

    Returns
    -------
    list of float
        A value from 0 to 1 for each set. A single set gets 1, or 0 if it is empty.

    Examples
    --------
    >>> joy, anger = frozenset({"joy"}), frozenset({"anger"})
    >>> mean_agreement([joy, joy, anger], 0.0)
    [0.5, 0.5, 0.0]
    """
    size = len(sets)
    if size == 1:
        return [float(bool(sets[0]))]
    total = [0.0] * size
    for i in range(size):
        for j in range(i + 1, size):
            value = smoothed_iou(sets[i], sets[j], s)
            total[i] += value
            total[j] += value
    return [t / (size - 1) for t in total]


def recognizer_rewards(
    members: Sequence[LabelSet],
    well_formed: Sequence[bool],
    truth: LabelSet,
    terms: RewardTerms,
) -> tuple[list[float], float]:
    """Return the rewards of a recognizer's group, and the consistency of the group.

    Parameters
    ----------
    members
        The emotions that each member of the group names.
    well_formed
        Whether each answer is well formed.
    truth
        The emotions of the target, from the consensus or from gold labels.
    terms
        The smoothing and the weights.

    Returns
    -------
    rewards : list of float
        The reward of each member.
    consistency : float
        The mean agreement of the members, 0 to 1.

    Examples
    --------
    >>> joy, anger = frozenset({"joy"}), frozenset({"anger"})
    >>> recognizer_rewards([joy, anger], [True, True], joy, RewardTerms(0.0, 0.5, 0.25, 0.25))
    ([0.75, 0.25], 0.0)
    """
    agreement = mean_agreement(members, terms.smoothing)
    rewards = [
        terms.alignment * smoothed_iou(p, truth, terms.smoothing)
        + terms.consistency * a
        + terms.format * f
        for p, a, f in zip(members, agreement, well_formed, strict=True)
    ]
    return rewards, sum(agreement) / len(agreement)


def responder_reward(
    intended: LabelSet,
    readings: Sequence[LabelSet],
    labels: Sequence[str],
    well_formed: bool,
    penalty: float,
    terms: RewardTerms,
) -> tuple[float, float]:
    """Return the reward of one response, and the agreement of the judge's readings of it.

    Parameters
    ----------
    intended
        The emotions that the response is to express.
    readings
        The emotions that the judge names in each reading of the response.
    labels
        The label set.
    well_formed
        Whether the response is well formed.
    penalty
        What is subtracted from the reward, 0 or more.
    terms
        The smoothing and the weights.

    Returns
    -------
    reward : float
        The reward of the response.
    agreement : float
        The mean agreement of the readings, 0 to 1.

    Examples
    --------
    >>> joy = frozenset({"joy"})
    >>> terms = RewardTerms(0.0, 0.5, 0.25, 0.25)
    >>> responder_reward(joy, [joy, joy], ["joy", "anger"], True, 0.5, terms)
    (0.5, 1.0)
    """
    target = {e: float(e in intended) for e in labels}
    shares = {e: share_naming(readings, e) for e in labels}
    agreements = mean_agreement(readings, terms.smoothing)
    agreement = sum(agreements) / len(agreements)
    alignment = soft_iou(target, shares, terms.smoothing)
    reward = (terms.alignment + terms.consistency * agreement) * alignment
    reward += terms.format * well_formed
    return reward - penalty, agreement


def group_advantages(rewards: Sequence[float], weight: float) -> list[float]:
    """Return the group-relative advantages of one group.

    Parameters
    ----------
    rewards
        The rewards of the group's members.
    weight
        The weight of the group, its consistency C.

    Returns
    -------
    list of float
        The advantage of each member. All are 0 if the rewards are equal (within 1e-9).

    Examples
    --------
    >>> [round(a, 3) for a in group_advantages([1.0, 0.0], 0.5)]
    [0.5, -0.5]
    """
    mean = sum(rewards) / len(rewards)
    if max(rewards) - min(rewards) <= 1e-9:
        return [0.0] * len(rewards)
    std = sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    return [weight * (r - mean) / (std + STD_FLOOR) for r in rewards]
