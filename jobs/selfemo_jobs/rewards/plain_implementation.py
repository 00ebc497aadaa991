"""The same equations in plain Python, one group at a time: to read, and to test and time against.

Nothing in the product calls this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from selfemo_jobs.rewards.groups import STD_FLOOR, Terms

LabelSet = frozenset[str]


def smoothed_iou(a: LabelSet, b: LabelSet, s: float) -> float:
    """Return the smoothed IoU of two sets; 0 where either is empty."""
    if not a or not b:
        return 0.0
    both = len(a & b)
    return (both + s) / (len(a) + len(b) - both + s)


def soft_iou(p: dict[str, float], q: dict[str, float], s: float) -> float:
    """Return the smoothed IoU of two tables of shares; 0 where either has none."""
    if not any(p.values()) or not any(q.values()):
        return 0.0
    names = {*p, *q}
    low = sum(min(p.get(e, 0.0), q.get(e, 0.0)) for e in names)
    high = sum(max(p.get(e, 0.0), q.get(e, 0.0)) for e in names)
    return (low + s) / (high + s)


def share(sets: Sequence[LabelSet], label: str) -> float:
    """Return the share of the sets that name a label; of no sets: 0."""
    return [label in named for named in sets].count(True) / len(sets) if sets else 0.0


def share_of_all(sets: Sequence[LabelSet], wanted: LabelSet) -> float:
    """Return the share of the sets that name all that is wanted; of no sets: 0."""
    return [wanted <= named for named in sets].count(True) / len(sets) if sets else 0.0


def consensus(
    members: Sequence[LabelSet],
    readings: Sequence[LabelSet],
    labels: Sequence[str],
    tau: float,
    weight: float,
) -> LabelSet | None:
    """Return the emotions voted for, or None where there are none or the vote is tied."""
    w = weight if readings else 0.0
    found = frozenset(
        e for e in labels if (1 - w) * share(members, e) + w * share(readings, e) >= tau - 1e-9
    )
    if len(found) < 2:
        return found or None
    together = (1 - w) * share_of_all(members, found) + w * share_of_all(readings, found)
    carried = together > tau + 1e-9 or together >= 1 - 1e-9
    return found if carried and len(found) < len(labels) else None


def agreement(sets: Sequence[LabelSet], s: float) -> list[float]:
    """Return each set's mean smoothed IoU with the others."""
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


def understanding(
    members: Sequence[LabelSet], well_formed: Sequence[bool], truth: LabelSet, terms: Terms
) -> tuple[list[float], float]:
    """Return the recognizer's rewards and the group's consistency."""
    agreed = agreement(members, terms.smoothing)
    rewards = [
        terms.alignment * smoothed_iou(p, truth, terms.smoothing)
        + terms.consistency * a
        + terms.format * f
        for p, a, f in zip(members, agreed, well_formed, strict=True)
    ]
    return rewards, sum(agreed) / len(agreed)


def expression(
    intended: LabelSet,
    readings: Sequence[LabelSet],
    labels: Sequence[str],
    well_formed: bool,
    penalty: float,
    terms: Terms,
) -> tuple[float, float]:
    """Return one response's reward and the agreement of its readings."""
    target = {e: float(e in intended) for e in labels}
    read = {e: share(readings, e) for e in labels}
    agreed = agreement(readings, terms.smoothing)
    c = sum(agreed) / len(agreed)
    aligned = soft_iou(target, read, terms.smoothing)
    reward = terms.alignment * aligned + terms.consistency * c + terms.format * well_formed
    return reward - penalty, c


def advantages(rewards: Sequence[float], weight: float) -> list[float]:
    """Return one group's advantages."""
    mean = sum(rewards) / len(rewards)
    if max(rewards) - min(rewards) <= 1e-9:
        return [0.0] * len(rewards)
    std = sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards))
    return [weight * (r - mean) / (std + STD_FLOOR) for r in rewards]
