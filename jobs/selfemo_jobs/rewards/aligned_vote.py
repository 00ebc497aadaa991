"""The aligned vote: each emotion wins as often as the label prior says.

A model that is unsure answers with the frequent emotions. Then a rare emotion wins no vote, and
nothing is ever learned about it. The aligned vote multiplies the shares of each emotion by a
factor, such that the winners have the frequencies of the prior.

Chance alone moves the frequencies of a few groups away from the prior. So in a small part, the
plain winners count too. An emotion that every voter names wins in any case.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfemo_jobs.rewards.consensus import ROUNDING, Consensus, Verdict
from selfemo_jobs.rewards.label_sets import Floats, Masks, count_votes, pack_masks

#: Votes that are added for each emotion. Without them, an emotion without votes could never win.
PSEUDO_VOTES = 0.5
#: The number of groups at which the prior counts as much as the plain winners of the part. The
#: frequencies of 16 groups are off by a tenth by chance, those of a usual part of 256 by 3 points.
PLAIN_GROUPS = 16
#: Steps of the search for the factors. In tests, 200 reach the prior up to a few groups.
STEPS = 200
#: The exponent of a step. A larger one is faster and goes back and forth.
_EXPONENT = 0.1
#: Added to both frequencies of a step, so that no factor grows without bounds.
_FLOOR = 0.005


def aligned_vote(
    members: Masks,
    readings: Masks | None,
    *,
    num_labels: int,
    judge_weight: float,
    prior: Floats | None,
) -> Consensus:
    """Return the emotion that wins the aligned vote of each group.

    ``argmax_e f(e) * (q(e) + c)``, where q is the share of votes as in
    :func:`selfemo_jobs.rewards.consensus.consensus` and c a fraction of a vote. The factors f are
    those with which the winners of the N groups have the frequencies of the prior, mixed with those
    of the plain winners in the ratio N to :data:`PLAIN_GROUPS`. An emotion that has all votes of a
    group wins it.

    Parameters
    ----------
    members
        Masks of shape (N, G): the emotions that each of the G members names.
    readings
        Masks of shape (N, S): the emotions that the judge names in each of its S readings. None
        stands for a judge without a vote.
    num_labels
        Number of labels, E.
    judge_weight
        The weight of the judge's readings, from 0 to 1.
    prior
        Shape (E,): the label prior. None: all factors are 1.

    Returns
    -------
    Consensus
        One emotion for each group. The confidence is its aligned share, from 0 to 1. A group for
        which no voter names an emotion has the verdict ``EMPTY``.

    Notes
    -----
    Ours. ReMixMatch (Berthelot et al. 2020, arXiv 1911.09785) and AdaMatch (2106.04732) align the
    means of the shares. Here that changes almost nothing: the frequencies of the winners have to be
    aligned.

    Examples
    --------
    >>> votes = np.array([[1, 1, 1, 1], [1, 1, 1, 2], [1, 1, 2, 2], [1, 1, 1, 2]], np.uint8)
    >>> part = np.repeat(votes, 64, axis=0)
    >>> even = aligned_vote(part, None, num_labels=2, judge_weight=0, prior=np.array([0.75, 0.25]))
    >>> even.masks[::64].tolist()  # the second emotion wins where it is the least behind
    [1, 1, 2, 1]
    """
    w = 0.0 if readings is None else judge_weight
    shares = (1.0 - w) / members.shape[-1] * count_votes(members, num_labels)
    voters = float(members.shape[-1])
    if readings is not None:
        shares = shares + w / readings.shape[-1] * count_votes(readings, num_labels)
        voters += readings.shape[-1]
    named = shares.sum(axis=1) > 0.0
    smoothed = shares + PSEUDO_VOTES / voters
    # where every voter names some emotions, no other one can win
    by_all = shares >= 1.0 - ROUNDING
    smoothed[by_all.any(axis=1)[:, np.newaxis] & ~by_all] = 0.0
    unanimous = np.isclose(shares.max(axis=1, initial=0.0), shares.sum(axis=1)) & named
    unanimous |= by_all.sum(axis=1) == 1
    free = named & ~unanimous
    aligned = smoothed.copy()
    if prior is not None:
        fixed = np.bincount(shares[unanimous].argmax(axis=1), minlength=num_labels)
        aligned[free] *= _factors(smoothed[free], prior, fixed)
    aligned /= aligned.sum(axis=1, keepdims=True)
    winners = aligned.argmax(axis=1)
    masks = pack_masks(np.eye(num_labels, dtype=np.bool_)[winners])
    masks[~named] = 0
    confidence = np.where(named, aligned.max(axis=1, initial=0.0), 0.0)
    verdicts = np.where(named, Verdict.AGREED, Verdict.EMPTY).astype(np.uint8)
    return Consensus(masks, verdicts, confidence)


def _factors(shares: Floats, prior: Floats, fixed: NDArray[np.int64]) -> Floats:
    """Return the factors with which the winners have the frequencies of the prior; shape (E,).

    Parameters
    ----------
    shares
        Shape (N, E): the shares of the groups whose winner depends on the factors.
    prior
        Shape (E,): the label prior.
    fixed
        Shape (E,): how many other groups each emotion wins.
    """
    factors = np.ones_like(prior)
    if not len(shares):
        return factors
    groups = len(shares) + int(fixed.sum())
    plain = fixed + np.bincount(shares.argmax(axis=1), minlength=len(prior))
    target = (groups * prior / prior.sum() + PLAIN_GROUPS * plain / groups) / (
        groups + PLAIN_GROUPS
    )
    for _ in range(STEPS):
        winners = (shares * factors).argmax(axis=1)
        frequencies = (fixed + np.bincount(winners, minlength=len(prior))) / groups
        # a group is the least that a frequency changes by
        if (np.abs(frequencies - target) * groups < 1.0).all():
            break
        factors *= ((target + _FLOOR) / (frequencies + _FLOOR)) ** _EXPONENT
    return factors
