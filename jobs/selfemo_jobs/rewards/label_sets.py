"""Label sets as bit masks, and the similarity of two sets (smoothed IoU).

A set of emotions is stored as one unsigned integer: bit *e* stands for ``labels[e]``. The
intersection of two sets is then a bitwise AND followed by a population count. NumPy computes both
for whole arrays of groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

#: One mask for each set: uint8 for up to 8 labels, uint64 for up to 64 (the limit of the API).
Masks = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_LABELS = 64
#: Number of groups in one chunk. The arrays of a chunk fit the processor's cache, and the memory
#: in use does not grow with the number of groups.
CHUNK_SIZE = 4096


def chunk_slices(count: int) -> Iterator[slice]:
    """Yield slices of at most :data:`CHUNK_SIZE` items that together cover an array.

    Parameters
    ----------
    count
        Length of the array. The last slice may end after it.

    Yields
    ------
    slice
        The slices, in order.

    Examples
    --------
    >>> list(chunk_slices(5000))
    [slice(0, 4096, None), slice(4096, 8192, None)]
    """
    for start in range(0, count, CHUNK_SIZE):
        yield slice(start, start + CHUNK_SIZE)


def mask_dtype(num_labels: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned integer type with one bit for each label.

    Parameters
    ----------
    num_labels
        Number of labels, 1 to 64.

    Returns
    -------
    numpy.dtype
        One of uint8, uint16, uint32 and uint64.

    Raises
    ------
    ValueError
        If ``num_labels`` is out of range.

    Examples
    --------
    >>> mask_dtype(7), mask_dtype(9)
    (dtype('uint8'), dtype('uint16'))
    """
    if not 1 <= num_labels <= MAX_LABELS:
        raise ValueError(f"a label set has 1 to {MAX_LABELS} labels, not {num_labels}")
    types = (np.dtype(name) for name in ("u1", "u2", "u4", "u8"))
    return next(dtype for dtype in types if num_labels <= dtype.itemsize * 8)


def pack_masks(membership: Bools) -> Masks:
    """Return the masks of sets that are given as boolean arrays.

    Parameters
    ----------
    membership
        Array of shape (..., E). The last axis tells for each of the E labels whether it is in the
        set.

    Returns
    -------
    Masks
        Array of shape (...), one mask for each set.

    Examples
    --------
    >>> pack_masks(np.array([[True, False, True], [False, False, False]])).tolist()
    [5, 0]
    """
    dtype = mask_dtype(membership.shape[-1])
    masks = np.zeros(membership.shape[:-1], dtype)
    for e in range(membership.shape[-1]):
        masks |= membership[..., e].astype(dtype) << dtype.type(e)
    return masks


def encode_label_sets(sets: Iterable[Iterable[str] | None], labels: Sequence[str]) -> Masks:
    """Return the masks of sets that are given as label names.

    Parameters
    ----------
    sets
        N sets of label names. None stands for the empty set.
    labels
        The E labels. Label number e is bit e of a mask.

    Returns
    -------
    Masks
        Array of shape (N,).

    Raises
    ------
    KeyError
        If a name is not one of ``labels``.

    Examples
    --------
    >>> encode_label_sets([["joy"], ["neutral", "joy"], None], ["neutral", "anger", "joy"]).tolist()
    [4, 5, 0]
    """
    bit = {label: 1 << e for e, label in enumerate(labels)}
    masks = []
    for names in sets:
        mask = 0
        for name in names or ():
            mask |= bit[name]
        masks.append(mask)
    return np.array(masks, mask_dtype(len(labels)))


def decode_label_set(mask: int, labels: Sequence[str]) -> list[str]:
    """Return the label names of one mask.

    Parameters
    ----------
    mask
        The set as an integer; bit e stands for ``labels[e]``.
    labels
        The E labels.

    Returns
    -------
    list of str
        The names of the set, in the order of ``labels``.

    Examples
    --------
    >>> decode_label_set(5, ["neutral", "anger", "joy"])
    ['neutral', 'joy']
    """
    return [label for e, label in enumerate(labels) if mask >> e & 1]


def count_votes(masks: Masks, num_labels: int) -> npt.NDArray[np.unsignedinteger]:
    """Return how many of the sets in a group contain each label.

    Parameters
    ----------
    masks
        Array of shape (..., V): the sets of V voters.
    num_labels
        Number of labels, E.

    Returns
    -------
    numpy.ndarray
        Counts of shape (..., E), each 0 to V.

    Examples
    --------
    >>> labels = ["neutral", "anger", "joy"]
    >>> answers = encode_label_sets([["joy"], ["joy", "anger"], ["joy"]], labels)
    >>> count_votes(answers, 3).tolist()
    [0, 1, 3]
    """
    bits = masks.dtype.type
    voters = np.ascontiguousarray(np.moveaxis(masks, -1, 0))  # sums over the first axis are fast
    # one byte counts up to 255 voters
    dtype = np.dtype(np.uint8 if voters.shape[0] <= 255 else np.uint64)
    counts = np.empty((num_labels, *masks.shape[:-1]), dtype)
    for e in range(num_labels):
        counts[e] = np.sum((voters >> bits(e)) & bits(1), axis=0, dtype=dtype)
    return np.moveaxis(counts, 0, -1)


def smoothed_iou(a: Masks, b: Masks, smoothing: float) -> Floats:
    """Return the smoothed intersection over union (IoU) of two label sets.

    ``sIoU(a, b) = (|a & b| + s) / (|a | b| + s)``, and 0 where either set is empty.

    The exception for empty sets is needed because an answer without a label must not earn a reward.
    By the bare formula two empty sets would agree fully, and an empty answer would beat a wrong
    one.

    Parameters
    ----------
    a, b
        Arrays of masks whose shapes broadcast together.
    smoothing
        The constant s, 0 or more. It raises the value of two disjoint sets above 0. The more labels
        the two sets have, the smaller that value is.

    Returns
    -------
    numpy.ndarray
        Values from 0 (nothing in common) to 1 (equal sets), of the broadcast shape.

    Notes
    -----
    Ours. The abstract of SELF-EMO names a smoothed IoU and gives no formula.

    Examples
    --------
    >>> labels = ["neutral", "anger", "joy"]
    >>> answers = encode_label_sets([["joy"], ["joy", "anger"], ["anger"], []], labels)
    >>> smoothed_iou(answers, encode_label_sets([["joy"]], labels), smoothing=0.1).round(3).tolist()
    [1.0, 0.524, 0.048, 0.0]
    """
    intersection: Floats = np.add(np.bitwise_count(a & b), smoothing, dtype=np.float64)
    union: Floats = np.add(np.bitwise_count(a | b), smoothing, dtype=np.float64)
    iou = intersection
    np.divide(iou, union, out=iou, where=union > 0.0)  # two empty sets without smoothing
    not_empty = (a != 0) & (b != 0)
    if not not_empty.all():
        iou *= not_empty
    return iou


def soft_iou(p: Floats, q: Floats, smoothing: float) -> Floats:
    """Return the smoothed IoU of two vectors of shares.

    ``softIoU(p, q) = (sum_e min(p_e, q_e) + s) / (sum_e max(p_e, q_e) + s)``, and 0 where all
    shares of either vector are 0. It extends the smoothed IoU from sets to shares: for shares that
    are 0 or 1 both functions are equal.

    Parameters
    ----------
    p, q
        Arrays of shape (..., E) whose shapes broadcast together. Each share is between 0 and 1.
    smoothing
        The constant s, 0 or more.

    Returns
    -------
    numpy.ndarray
        Values from 0 to 1, of shape (...).

    Notes
    -----
    Ours. Without s it is the Ruzicka similarity (weighted Jaccard index).

    Examples
    --------
    >>> intended = np.array([0.0, 0.0, 1.0])  # joy, of neutral, anger and joy
    >>> readings = np.array([0.0, 0.25, 0.75])  # three of four readings name joy
    >>> float(soft_iou(intended, readings, smoothing=0.1).round(3))
    0.63
    """
    not_empty = (p.sum(axis=-1) > 0) & (q.sum(axis=-1) > 0)
    union = np.where(not_empty, np.maximum(p, q).sum(axis=-1) + smoothing, 1.0)
    iou = (np.minimum(p, q).sum(axis=-1) + smoothing) / union
    return np.asarray(iou * not_empty, np.float64)


def mean_agreement(masks: Masks, smoothing: float) -> Floats:
    """Return how much each set agrees with the other sets of its group.

    ``agreement_i = mean over j != i of sIoU(P_i, P_j)``. The mean of these values over a group is
    the consistency C of the group, which is the mean over all pairs.

    Parameters
    ----------
    masks
        Array of shape (N, G): N groups of G sets.
    smoothing
        The constant s of the smoothed IoU, 0 or more.

    Returns
    -------
    numpy.ndarray
        Values from 0 to 1, of shape (N, G). A group of one set (G = 1) gets 1, or 0 if the set is
        empty.

    Notes
    -----
    Ours. The sets of a group are arranged in a ring. For each distance d up to G/2, the pairs at
    that distance are computed for many groups at once, so that each pair is computed one time.

    Examples
    --------
    >>> labels = ["neutral", "anger", "joy"]
    >>> group = encode_label_sets([["joy"], ["joy"], ["anger"]], labels)[np.newaxis]
    >>> mean_agreement(group, smoothing=0.1).round(3).tolist()
    [[0.524, 0.524, 0.048]]
    """
    columns = np.ascontiguousarray(masks.T)
    size = columns.shape[0]
    if size == 1:
        return np.asarray(masks != 0, np.float64)
    total: Floats = np.zeros(columns.shape)
    for d in range(1, size // 2 + 1):
        if 2 * d == size:  # halfway round the ring each pair would be met from both ends
            opposite = smoothed_iou(columns[:d], columns[d:], smoothing)
            total[:d] += opposite
            total[d:] += opposite
            break
        ahead = smoothed_iou(columns[:-d], columns[d:], smoothing)
        total[:-d] += ahead
        total[d:] += ahead
        around = smoothed_iou(columns[-d:], columns[:d], smoothing)
        total[-d:] += around
        total[:d] += around
    agreement: Floats = (total / (size - 1)).T
    return agreement


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
