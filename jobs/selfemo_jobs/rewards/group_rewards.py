"""Rewards of both roles, and group-relative advantages, for N groups of G candidates at once.

Only the abstract of SELF-EMO is public. Every equation here is ours; see docs/guides/rewards.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selfemo_api.spec import RewardSpec
from selfemo_jobs.rewards.label_sets import (
    Bools,
    Floats,
    Masks,
    chunk_slices,
    count_votes,
    mean_agreement,
    smoothed_iou,
    soft_iou,
)

#: Added to the standard deviation so that the advantage stays finite. GRPO's implementations use
#: the same value.
STD_FLOOR = 1e-4
#: Two rewards of a group that differ by at most this differ only by rounding errors.
SAME_REWARD = 1e-9


@dataclass(frozen=True)
class RewardTerms:
    """Smoothing of the IoU, and the weights of the reward's terms."""

    smoothing: float
    """The constant s of the smoothed IoU, 0 or more."""
    alignment: float
    """Weight w_a of the alignment, 0 or more."""
    consistency: float
    """Weight w_c of the agreement, 0 or more."""
    format: float
    """Weight w_f of a well-formed completion, 0 or more."""

    @classmethod
    def from_spec(cls, spec: RewardSpec) -> RewardTerms:
        """Return the terms of a specification.

        Parameters
        ----------
        spec
            The field ``spec.reward`` of an EmotionEvolution.

        Returns
        -------
        RewardTerms
            The smoothing and the three weights.

        Examples
        --------
        >>> RewardTerms.from_spec(RewardSpec())
        RewardTerms(smoothing=0.1, alignment=0.7, consistency=0.2, format=0.1)
        """
        w = spec.weights
        return cls(spec.smoothing, w.alignment, w.consistency, w.format)


@dataclass(frozen=True)
class GroupRewards:
    """Rewards of N groups of G candidates, and the terms that they are made of.

    All arrays have the shape (N, G), except ``consistency``.
    """

    alignment: Floats
    """Similarity to the emotions that are true (recognizer) or intended (responder), 0 to 1."""
    agreement: Floats
    """For the recognizer, the mean similarity to the group's other members. For the responder, the
    mean similarity of the judge's readings of a response to each other. Both are 0 to 1."""
    reward: Floats
    """The weighted sum of the terms, less the penalty."""
    consistency: Floats
    """Shape (N,): the mean of ``agreement`` over a group, C."""


def recognizer_rewards(
    members: Masks, well_formed: Bools, truth: Masks, terms: RewardTerms
) -> GroupRewards:
    """Return the recognizer's rewards.

    ``r_i = w_a * sIoU(P_i, Y) + w_c * (mean over j != i of sIoU(P_i, P_j)) + w_f * format_i``

    Parameters
    ----------
    members
        Masks of shape (N, G): the emotions P_i that each member names.
    well_formed
        Array of shape (N, G): whether each answer is well formed.
    truth
        Masks of shape (N,): the emotions Y of each target, from the consensus or from gold labels.
    terms
        The smoothing and the weights.

    Returns
    -------
    GroupRewards
        The rewards and their terms.

    Notes
    -----
    Ours.

    Examples
    --------
    >>> from selfemo_jobs.rewards import encode_label_sets
    >>> labels = ["neutral", "anger", "joy"]
    >>> group = encode_label_sets([["joy"], ["joy"], ["anger"]], labels)[np.newaxis]
    >>> rewards = recognizer_rewards(
    ...     group,
    ...     np.array([[True, True, True]]),
    ...     encode_label_sets([["joy"]], labels),
    ...     RewardTerms(smoothing=0.1, alignment=0.7, consistency=0.2, format=0.1),
    ... )
    >>> rewards.reward.round(3).tolist()
    [[0.905, 0.905, 0.143]]
    >>> rewards.consistency.round(3).tolist()
    [0.365]
    """
    rewards = _allocate(members.shape)
    for part in chunk_slices(members.shape[0]):
        alignment = smoothed_iou(members[part], truth[part, np.newaxis], terms.smoothing)
        agreement = mean_agreement(members[part], terms.smoothing)
        _fill(rewards, part, alignment, agreement, agreement, well_formed[part], terms)
    return rewards


def responder_rewards(
    intended: Masks,
    readings: Masks,
    well_formed: Bools,
    penalty: Floats,
    terms: RewardTerms,
    *,
    num_labels: int,
) -> GroupRewards:
    """Return the responder's rewards.

    ``r = (w_a + w_c * C_y) * softIoU(1_T, q_y) + w_f * format_y - penalty_y``, where q_y holds the
    share of the judge's readings of response y that name each emotion. C_y is the mean pairwise
    sIoU of these readings: that a reading is certain counts as far as it is the intended one.

    Parameters
    ----------
    intended
        Masks of shape (N,): the emotions T that each group's responses are to express.
    readings
        Masks of shape (N, G, S): the emotions that the frozen judge names in each of its S readings
        of a response. The policy under training must not be the only reader.
    well_formed
        Array of shape (N, G): whether each response is well formed.
    penalty
        Array of shape (N, G): what is subtracted from each reward, 0 or more.
    terms
        The smoothing and the weights.
    num_labels
        Number of labels, E.

    Returns
    -------
    GroupRewards
        The rewards and their terms.

    Notes
    -----
    Ours.

    Examples
    --------
    >>> from selfemo_jobs.rewards import encode_label_sets
    >>> labels = ["neutral", "anger", "joy"]
    >>> readings = encode_label_sets([["joy"], ["joy"], ["joy"], ["anger"]], labels)
    >>> rewards = responder_rewards(
    ...     encode_label_sets([["joy"]], labels),
    ...     readings.reshape(1, 2, 2),  # one group of two responses, each read twice
    ...     np.array([[True, True]]),
    ...     np.array([[0.0, 0.5]]),
    ...     RewardTerms(smoothing=0.1, alignment=0.7, consistency=0.2, format=0.1),
    ...     num_labels=3,
    ... )
    >>> rewards.alignment.round(3).tolist()
    [[1.0, 0.375]]
    >>> rewards.reward.round(3).tolist()
    [[1.0, -0.134]]
    """
    _, group_size, samples = readings.shape
    rewards = _allocate(readings.shape[:2])
    for part in chunk_slices(readings.shape[0]):
        shares = count_votes(readings[part], num_labels) / samples
        target = count_votes(intended[part, np.newaxis], num_labels).astype(np.float64)
        alignment = soft_iou(target[:, np.newaxis], shares, terms.smoothing)
        pairs = mean_agreement(readings[part].reshape(-1, samples), terms.smoothing)
        agreement = pairs.mean(axis=-1).reshape(-1, group_size)
        consistency = agreement * alignment
        _fill(rewards, part, alignment, agreement, consistency, well_formed[part], terms)
        rewards.reward[part] -= penalty[part]
    return rewards


def group_advantages(rewards: Floats, weights: Floats) -> tuple[Floats, Bools]:
    """Return the group-relative advantages, and which groups have equal rewards only.

    ``A_i = C * (r_i - mean) / (std + 1e-4)``. Mean and standard deviation (of the population) are
    taken over the whole group, before any member is dropped. A group whose rewards are all equal
    contains nothing to learn; its advantages are exactly 0.

    Parameters
    ----------
    rewards
        Array of shape (N, G).
    weights
        Array of shape (N,): the weight C of each group. With the consistency as weight, groups that
        disagree count less.

    Returns
    -------
    advantages : numpy.ndarray
        Array of shape (N, G).
    zero_variance : numpy.ndarray
        Booleans of shape (N,): whether all rewards of a group are equal (within 1e-9).

    Notes
    -----
    The advantage is that of GRPO (Shao et al. 2024, arXiv 2402.03300, section 4.1.2). The weight C
    is ours.

    Examples
    --------
    >>> rewards = np.array([[1.0, 0.0], [0.5, 0.5]])
    >>> advantages, zero_variance = group_advantages(rewards, np.array([0.8, 1.0]))
    >>> advantages.round(3).tolist()
    [[0.8, -0.8], [0.0, 0.0]]
    >>> zero_variance.tolist()
    [False, True]
    """
    advantages = np.empty_like(rewards)
    zero_variance = np.empty(rewards.shape[0], np.bool_)
    for part in chunk_slices(rewards.shape[0]):
        r = rewards[part].T.copy()  # a copy: the caller's array must not change
        equal = r.max(axis=0) - r.min(axis=0) <= SAME_REWARD
        r -= r.mean(axis=0)
        std = np.sqrt(np.square(r).mean(axis=0))
        r *= np.where(equal, 0.0, weights[part] / (std + STD_FLOOR))
        advantages[part], zero_variance[part] = r.T, equal
    return advantages, zero_variance


def _allocate(shape: tuple[int, ...]) -> GroupRewards:
    return GroupRewards(np.empty(shape), np.empty(shape), np.empty(shape), np.empty(shape[0]))


def _fill(
    rewards: GroupRewards,
    part: slice,
    alignment: Floats,
    agreement: Floats,
    consistency: Floats,
    well_formed: Bools,
    terms: RewardTerms,
) -> None:
    """Write the terms of one chunk, and the reward before penalties.

    The consistency is what the weight w_c is for: the agreement, or a product with it.
    """
    rewards.alignment[part] = alignment
    rewards.agreement[part] = agreement
    rewards.consistency[part] = agreement.mean(axis=-1)
    reward = terms.alignment * alignment + terms.consistency * consistency
    reward += terms.format * well_formed
    rewards.reward[part] = reward
