"""Consensus: the emotions that a group and the judge agree an utterance has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from selfemo_jobs.rewards.label_sets import Floats, Masks, chunk_slices, count_votes, pack_masks

#: Tolerance of a comparison with a threshold. Shares of votes are ratios of small integers, so a
#: smaller difference is a rounding error and not a missing vote.
ROUNDING = 1e-9


class Verdict(IntEnum):
    """Outcome of a vote."""

    AGREED = 0
    """The vote has a result."""
    EMPTY = 1
    """No emotion reaches the threshold."""
    TIED = 2
    """The emotions that reach the threshold compete with each other; see :func:`consensus`."""


@dataclass(frozen=True)
class Consensus:
    """Outcome of the votes of N groups."""

    masks: Masks
    """Shape (N,): the emotions that reach the threshold. Use a mask only if its verdict is
    ``AGREED``."""
    verdicts: npt.NDArray[np.uint8]
    """Shape (N,): a :class:`Verdict` for each group."""
    confidence: Floats
    """Shape (N,): the smallest share q(e) of an emotion in the mask, 0 to 1. It is 0 where the mask
    is empty."""


def consensus(
    members: Masks,
    readings: Masks | None,
    *,
    num_labels: int,
    threshold: float,
    judge_weight: float,
) -> Consensus:
    """Return the emotions that enough votes of each group name.

    ``Y = {e : q(e) >= tau}``, where
    ``q(e) = (1 - w) * (share of the members naming e) + w * (share of the readings naming e)``.

    A vote has no result in two cases:

    - It is *empty* if no emotion reaches tau.
    - It is *tied* if Y holds two or more emotions, and the voters who name all of Y have a combined
      weight of at most tau. The emotions then got their votes from different voters, so they are
      competing answers and not one answer with several emotions. If every voter names all of Y, the
      vote is not tied. A vote for the whole label set is also tied, since it excludes nothing.

    As an example, a group and a judge that contradict each other at ``w = tau = 0.5`` are tied.

    Parameters
    ----------
    members
        Masks of shape (N, G): the emotions that each of the G members names. An empty answer is a
        vote for nothing and still counts in the denominator.
    readings
        Masks of shape (N, S): the emotions that the frozen judge names in each of its S readings.
        None stands for a judge without a vote (w = 0).
    num_labels
        Number of labels, E.
    threshold
        The share tau that an emotion must reach, above 0 and at most 1.
    judge_weight
        The weight w of the judge's readings, from 0 to 1.

    Returns
    -------
    Consensus
        Masks, verdicts and confidences of the N groups.

    Notes
    -----
    Ours. Methods without labels usually take a plain majority vote. The judge votes as well because
    a model that grades itself comes to agree with its own errors.

    Examples
    --------
    >>> from selfemo_jobs.rewards import decode_label_set, encode_label_sets
    >>> labels = ["neutral", "anger", "joy"]
    >>> group = encode_label_sets([["joy"], ["joy"], ["joy"], ["anger"]], labels)
    >>> judge = encode_label_sets([["joy"], ["neutral"]], labels)
    >>> vote = consensus(group[np.newaxis], judge[np.newaxis],
    ...                  num_labels=3, threshold=0.5, judge_weight=0.5)
    >>> Verdict(vote.verdicts[0]).name, decode_label_set(int(vote.masks[0]), labels)
    ('AGREED', ['joy'])
    >>> float(vote.confidence[0])  # half of 3/4 plus half of 1/2
    0.625
    """
    count = members.shape[0]
    votes = Consensus(np.empty(count, members.dtype), np.empty(count, np.uint8), np.empty(count))
    for part in chunk_slices(count):
        part_readings = None if readings is None else readings[part]
        votes.masks[part], votes.verdicts[part], votes.confidence[part] = _count_chunk(
            members[part], part_readings, num_labels, threshold, judge_weight
        )
    return votes


def _count_chunk(
    members: Masks, readings: Masks | None, num_labels: int, threshold: float, judge_weight: float
) -> tuple[Masks, npt.NDArray[np.int_], Floats]:
    """Return masks, verdicts and confidences of the groups of one chunk."""
    w = 0.0 if readings is None else judge_weight
    shares = (1.0 - w) / members.shape[-1] * count_votes(members, num_labels)
    if readings is not None:
        shares += w / readings.shape[-1] * count_votes(readings, num_labels)
    reached = shares >= threshold - ROUNDING
    masks = pack_masks(reached)
    confidence = np.where(masks == 0, 0.0, np.where(reached, shares, 1.0).min(axis=-1))
    together = (1.0 - w) * _share_naming_all(members, masks)
    if readings is not None:
        together += w * _share_naming_all(readings, masks)
    several = np.bitwise_count(masks) > 1
    supported = (together > threshold + ROUNDING) | (together >= 1.0 - ROUNDING)
    whole_set = masks == masks.dtype.type((1 << num_labels) - 1)
    tied = (several & ~supported) | (whole_set & (num_labels > 1))
    verdicts = np.where(masks == 0, Verdict.EMPTY, np.where(tied, Verdict.TIED, Verdict.AGREED))
    return masks, verdicts, confidence


def _share_naming_all(voters: Masks, masks: Masks) -> Floats:
    """Return the share of each group's voters, shape (N, V), who name all emotions of its mask."""
    columns = np.ascontiguousarray(voters.T)
    return np.asarray(((columns & masks) == masks).sum(axis=0) / columns.shape[0], np.float64)
