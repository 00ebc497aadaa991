"""The rewards of both roles and the group-relative advantage: N groups of G at once.

Only the abstract of SELF-EMO is public: every equation here is ours (docs/guides/rewards.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfemo_api.spec import RewardSpec
from selfemo_jobs.rewards.label_sets import (
    Bools,
    Floats,
    Masks,
    chunks,
    mean_agreement,
    smoothed_iou,
    soft_iou,
    votes,
)

#: Keeps the advantage finite; the usual value of GRPO's implementations.
STD_FLOOR = 1e-4
#: Rewards of a group closer together than this differ by rounding only.
SAME_REWARD = 1e-9


@dataclass(frozen=True)
class Terms:
    """What the rewards' terms count."""

    smoothing: float
    alignment: float
    consistency: float
    format: float

    @classmethod
    def of(cls, spec: RewardSpec) -> Terms:
        """Return the terms of a spec."""
        w = spec.weights
        return cls(spec.smoothing, w.alignment, w.consistency, w.format)


@dataclass(frozen=True)
class GroupRewards:
    """Rewards and what they are made of; shape (N, G) but for ``consistency``."""

    alignment: Floats
    agreement: Floats
    """With the group's other members (recognizer); within the response's readings (responder)."""
    reward: Floats
    consistency: Floats
    """Shape (N,): mean of ``agreement``, the group's C."""


def understanding(members: Masks, well_formed: Bools, truth: Masks, terms: Terms) -> GroupRewards:
    """Return the recognizer's rewards.

    ``r_i = w_a sIoU(P_i, Y) + w_c mean over j != i of sIoU(P_i, P_j) + w_f format_i``

    Parameters
    ----------
    members
        Shape (N, G): the emotions each member names, P.
    well_formed
        Shape (N, G).
    truth
        Shape (N,): the consensus or the gold emotions, Y.
    terms
        Smoothing and weights.

    Notes
    -----
    Ours.
    """
    found = _empty(members.shape)
    for part in chunks(members.shape[0]):
        alignment = smoothed_iou(members[part], truth[part, np.newaxis], terms.smoothing)
        agreement = mean_agreement(members[part], terms.smoothing)
        _fill(found, part, alignment, agreement, well_formed[part], terms)
    return found


def expression(
    intended: Masks,
    readings: Masks,
    well_formed: Bools,
    penalty: Floats,
    terms: Terms,
    *,
    size: int,
) -> GroupRewards:
    """Return the responder's rewards.

    ``r = w_a softIoU(1_T, q_y) + w_c C_y + w_f format_y - penalties``, where q_y are the shares of
    the judge's readings of response y that name each emotion, and C_y their mean pairwise sIoU.

    Parameters
    ----------
    intended
        Shape (N,): the emotions to express, T.
    readings
        Shape (N, G, S): what the judge reads in each response, S times.
    well_formed
        Shape (N, G).
    penalty
        Shape (N, G): what is taken off, 0 or more.
    terms
        Smoothing and weights.
    size
        Number of labels, E.

    Notes
    -----
    Ours. The readings are the frozen judge's, never only those of the model under training.
    """
    _, group, samples = readings.shape
    found = _empty(readings.shape[:2])
    for part in chunks(readings.shape[0]):
        shares = votes(readings[part], size) / samples
        target = votes(intended[part, np.newaxis], size).astype(np.float64)[:, np.newaxis]
        alignment = soft_iou(target, shares, terms.smoothing)
        pairs = mean_agreement(readings[part].reshape(-1, samples), terms.smoothing)
        agreement = pairs.mean(axis=-1).reshape(-1, group)
        _fill(found, part, alignment, agreement, well_formed[part], terms)
        found.reward[part] -= penalty[part]
    return found


def advantages(rewards: Floats, weights: Floats) -> tuple[Floats, Bools]:
    """Return the group-relative advantages, and which groups have no variance.

    ``A_i = C * (r_i - mean) / (std + 1e-4)``, over the whole group, before any member is dropped;
    std is the population's. A group whose rewards are all equal teaches nothing: exactly 0.

    Parameters
    ----------
    rewards
        Shape (N, G).
    weights
        Shape (N,): each group's consistency C, so that groups that do not know count less.

    Notes
    -----
    GRPO's advantage (Shao et al. 2024, eq. 3.2.1 in words); the weight C is ours.
    """
    out = np.empty_like(rewards)
    zero = np.empty(rewards.shape[0], np.bool_)
    for part in chunks(rewards.shape[0]):
        r = rewards[part].T.copy()  # the caller's array stays as it is
        flat = r.max(axis=0) - r.min(axis=0) <= SAME_REWARD
        r -= r.mean(axis=0)
        std = np.sqrt(np.square(r).mean(axis=0))
        r *= np.where(flat, 0.0, weights[part] / (std + STD_FLOOR))
        out[part], zero[part] = r.T, flat
    return out, zero


def _empty(shape: tuple[int, ...]) -> GroupRewards:
    return GroupRewards(np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape[0]))


def _fill(
    found: GroupRewards,
    part: slice,
    alignment: Floats,
    agreement: Floats,
    well_formed: Bools,
    terms: Terms,
) -> None:
    found.alignment[part] = alignment
    found.agreement[part] = agreement
    found.consistency[part] = agreement.mean(axis=-1)
    reward = terms.alignment * alignment + terms.consistency * agreement
    reward += terms.format * well_formed
    found.reward[part] = reward
