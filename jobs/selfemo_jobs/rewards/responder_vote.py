"""The responder's vote: which emotion makes a turn that was really said the most likely.

The recognizer reads ``P(emotion | turn)``. The responder knows ``P(turn | emotion, context)``, and
Bayes' rule makes a reading of it (a noisy channel; for language models, Min et al. 2022, arXiv
2108.04106). The two roles err in different ways, so each can correct the other. How the likelihood
is scaled and how it joins the judge's readings is ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from selfemo_jobs.rewards.label_sets import Floats, Masks, count_votes, mask_dtype

#: The exponent b of the responder's likelihood, in :func:`joint_shares`. See docs/studies/README.md
#: for how it was chosen.
LIKELIHOOD_WEIGHT = 0.3
#: Readings that are added to those of the judge for each emotion. Without them, an emotion that no
#: reading names could never be voted for.
PSEUDO_COUNT = 0.5


def emotion_evidence(logprobs: Floats, lengths: npt.NDArray[np.int64]) -> Floats:
    """Return how much each emotion explains each turn, compared with the other emotions.

    ``l(e) = log P(turn | e, context) / sqrt(tokens)``, less its mean over the emotions.

    The sum over tokens would be too certain: what the tokens of a turn say about the emotion is not
    independent. Their mean would count a long turn no more than a single word. The square root is
    between the two.

    Parameters
    ----------
    logprobs
        Shape (N, E): the log-probability of each turn given each emotion.
    lengths
        Shape (N,): the number of tokens of each turn, at least 1.

    Returns
    -------
    numpy.ndarray
        Shape (N, E). Each row has the mean 0.

    Notes
    -----
    Ours.

    Examples
    --------
    >>> emotion_evidence(np.array([[-8.0, -10.0, -12.0]]), np.array([4])).tolist()
    [[1.0, 0.0, -1.0]]
    """
    scaled = logprobs / np.sqrt(lengths)[:, np.newaxis]
    return np.asarray(scaled - scaled.mean(axis=1, keepdims=True))


def joint_shares(readings: Masks, evidence: Floats, weight: float = LIKELIHOOD_WEIGHT) -> Floats:
    """Return the share of each emotion by the judge's readings and the responder together.

    ``q(e) ~ (n(e) + 1/2) * exp(b * l(e))``, where n(e) of the judge's readings name e.

    Parameters
    ----------
    readings
        Masks of shape (N, S): the emotions that the judge names in each of its S readings.
    evidence
        Shape (N, E), see :func:`emotion_evidence`.
    weight
        The exponent b of the likelihood. 0 leaves the judge's shares as they are, but for the
        added half.

    Returns
    -------
    numpy.ndarray
        Shape (N, E). Each row has the sum 1.

    Notes
    -----
    Ours: a product of experts (Hinton 2002), with the judge's readings as one of them and the noisy
    channel as the other. The half is Jeffreys' prior.

    Examples
    --------
    >>> from selfemo_jobs.rewards import encode_label_sets
    >>> readings = encode_label_sets([["joy"], ["joy"], ["anger"]], ["anger", "joy"])[np.newaxis]
    >>> joint_shares(readings, np.array([[0.5, -0.5]]), weight=1.0).round(2).tolist()
    [[0.62, 0.38]]
    """
    counts = count_votes(readings, evidence.shape[1]) + PSEUDO_COUNT
    exponent = weight * evidence
    shares = counts * np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def apportion(shares: Floats, seats: int) -> Masks:
    """Return single-emotion readings in proportion to shares, by the largest remainder.

    Parameters
    ----------
    shares
        Shape (N, E): the share of each emotion. Each row has the sum 1.
    seats
        The number of readings of each row.

    Returns
    -------
    Masks
        Shape (N, seats): one emotion in each, in the order of the labels.

    Examples
    --------
    >>> apportion(np.array([[0.5, 0.3, 0.2]]), 4).tolist()  # 2.0, 1.2 and 0.8 of four
    [[1, 1, 2, 4]]
    """
    labels = shares.shape[1]
    exact = shares * seats
    counts = np.floor(exact + 1e-9).astype(np.int64)
    missing = seats - counts.sum(axis=1)
    # of equal remainders, the label that comes first has the reading
    order = np.argsort(-(exact - counts), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(labels)[np.newaxis], axis=1)
    counts += ranks < missing[:, np.newaxis]
    bits = mask_dtype(labels).type(1) << np.arange(labels).astype(mask_dtype(labels))
    return np.repeat(np.tile(bits, len(shares)), counts.ravel()).reshape(len(shares), seats)
