"""What a group of readers holds to be true of an utterance, where they agree enough."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from selfemo_jobs.rewards.label_sets import Floats, Masks, chunks, pack, votes

#: Votes are ratios of small integers; this much below a threshold is rounding, not a missing vote.
ROUNDING = 1e-9


class Verdict(IntEnum):
    """How a vote came out."""

    AGREED = 0
    EMPTY = 1
    """No emotion reaches the threshold."""
    TIED = 2
    """Emotions reach it that are rivals, not companions: see :func:`consensus`."""


@dataclass(frozen=True)
class Consensus:
    """The outcome of N votes."""

    masks: Masks
    """Shape (N,): the emotions that reach the threshold; of use only where they are agreed."""
    verdicts: npt.NDArray[np.uint8]
    """Shape (N,), each a :class:`Verdict`."""
    confidence: Floats
    """Shape (N,): the smallest q(e) of the emotions in the mask; 0 where there is none."""


def consensus(
    members: Masks, readings: Masks | None, *, size: int, threshold: float, weight: float
) -> Consensus:
    """Return ``Y = {e : q(e) >= tau}`` for each group.

    ``q(e) = (1 - w) * (share of the group naming e) + w * (share of the judge's readings)``.

    The vote is *tied* where Y holds two or more emotions and the voters who name all of Y together
    weigh no more than tau (and are not everybody): each got its votes from other voters, or from
    exactly enough of them. So a group and a judge that flatly contradict each other at
    ``w = tau = 0.5`` tie, and so does a group that names every emotion against a judge that does
    not. It is tied as well where Y is the whole label set, which says nothing.

    Parameters
    ----------
    members
        Shape (N, G): what each member of the group names. An empty answer is a vote for nothing
        and stays in the denominator.
    readings
        Shape (N, S): what the frozen judge names; None counts as ``weight = 0``.
    size
        Number of labels, E.
    threshold
        tau, above 0 and at most 1.
    weight
        w, 0 to 1: the judge's say.

    Notes
    -----
    Ours. Plain majority votes are what label-free peers use; the judge's share is there because a
    model that grades itself ends up agreeing with itself.
    """
    count = members.shape[0]
    out = Consensus(np.empty(count, members.dtype), np.empty(count, np.uint8), np.empty(count))
    for part in chunks(count):
        read = None if readings is None else readings[part]
        out.masks[part], out.verdicts[part], out.confidence[part] = _vote(
            members[part], read, size, threshold, weight
        )
    return out


def _vote(
    members: Masks, readings: Masks | None, size: int, threshold: float, weight: float
) -> tuple[Masks, npt.NDArray[np.int_], Floats]:
    w = 0.0 if readings is None else weight
    shares = (1.0 - w) / members.shape[-1] * votes(members, size)
    if readings is not None:
        shares += w / readings.shape[-1] * votes(readings, size)
    named = shares >= threshold - ROUNDING
    masks = pack(named)
    confidence = np.where(masks == 0, 0.0, np.where(named, shares, 1.0).min(axis=-1))
    together = (1.0 - w) * _naming_all(members, masks)
    if readings is not None:
        together += w * _naming_all(readings, masks)
    several = np.bitwise_count(masks) > 1
    carried = (together > threshold + ROUNDING) | (together >= 1.0 - ROUNDING)
    everything = masks == masks.dtype.type((1 << size) - 1)
    tied = (several & ~carried) | (everything & (size > 1))
    verdicts = np.where(masks == 0, Verdict.EMPTY, np.where(tied, Verdict.TIED, Verdict.AGREED))
    return masks, verdicts, confidence


def _naming_all(voters: Masks, masks: Masks) -> Floats:
    columns = np.ascontiguousarray(voters.T)
    return np.asarray(((columns & masks) == masks).sum(axis=0) / columns.shape[0], np.float64)
