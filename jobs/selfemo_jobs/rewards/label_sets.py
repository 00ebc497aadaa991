"""Label sets as bit masks, and the smoothed IoU between them.

A set of emotions is one unsigned integer: bit *e* stands for ``labels[e]``. Overlaps are then an
AND and a population count, which numpy does for whole columns of groups at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

#: One mask a set: uint8 up to 8 labels, uint64 up to 64 (the most that the API takes).
Masks = npt.NDArray[np.unsignedinteger]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MAX_LABELS = 64
#: Groups worked on at once: the working set stays in the cache, and memory stays flat.
CHUNK = 4096


def chunks(groups: int) -> Iterator[slice]:
    """Yield slices that cover so many groups, a few thousand at a time."""
    for start in range(0, groups, CHUNK):
        yield slice(start, start + CHUNK)


def mask_dtype(size: int) -> np.dtype[np.unsignedinteger]:
    """Return the smallest unsigned type that holds ``size`` labels.

    Raises
    ------
    ValueError
        If there are none, or more than 64.
    """
    if not 1 <= size <= MAX_LABELS:
        raise ValueError(f"a label set has 1 to {MAX_LABELS} labels, not {size}")
    return next(np.dtype(t) for t in ("u1", "u2", "u4", "u8") if size <= np.dtype(t).itemsize * 8)


def pack(named: Bools) -> Masks:
    """Return the masks of boolean arrays.

    Parameters
    ----------
    named
        Shape (..., E): whether each label is in the set.

    Returns
    -------
    Masks
        Shape (...).
    """
    dtype = mask_dtype(named.shape[-1])
    out = np.zeros(named.shape[:-1], dtype)
    for e in range(named.shape[-1]):
        out |= named[..., e].astype(dtype) << dtype.type(e)
    return out


def encode(sets: Iterable[Iterable[str] | None], labels: Sequence[str]) -> Masks:
    """Return the mask of each set of label names; None is the empty set.

    Raises
    ------
    KeyError
        If a name is not one of ``labels``.
    """
    bit = {label: 1 << e for e, label in enumerate(labels)}
    masks = []
    for names in sets:
        mask = 0
        for name in names or ():
            mask |= bit[name]
        masks.append(mask)
    return np.array(masks, mask_dtype(len(labels)))


def decode(mask: int, labels: Sequence[str]) -> list[str]:
    """Return the names in a mask, in the order of ``labels``."""
    return [label for e, label in enumerate(labels) if mask >> e & 1]


def votes(masks: Masks, size: int) -> npt.NDArray[np.unsignedinteger]:
    """Return how many sets name each label.

    Parameters
    ----------
    masks
        Shape (..., V): V voters.
    size
        Number of labels, E.

    Returns
    -------
    numpy.ndarray
        Shape (..., E).
    """
    bits = masks.dtype.type
    voters = np.ascontiguousarray(np.moveaxis(masks, -1, 0))  # sums over the first axis are fast
    # one byte counts up to 255 voters
    count = np.dtype(np.uint8 if voters.shape[0] <= 255 else np.uint64)
    out = np.empty((size, *masks.shape[:-1]), count)
    for e in range(size):
        out[e] = np.sum((voters >> bits(e)) & bits(1), axis=0, dtype=count)
    return np.moveaxis(out, 0, -1)


def smoothed_iou(a: Masks, b: Masks, smoothing: float) -> Floats:
    """Return ``(|a & b| + s) / (|a | b| + s)``, and 0 where either set is empty.

    An answer that names nothing agrees with nothing: by the bare formula two empty sets would agree
    fully, and an empty answer would beat a wrong one.

    Parameters
    ----------
    a, b
        Masks that broadcast together.
    smoothing
        s >= 0. It lifts a miss above 0, and the less the more labels the miss names.

    Notes
    -----
    Ours: the paper's abstract names a smoothed IoU and gives no formula.
    """
    both: Floats = np.add(np.bitwise_count(a & b), smoothing, dtype=np.float64)
    either = np.add(np.bitwise_count(a | b), smoothing, dtype=np.float64)
    np.divide(both, either, out=both, where=either > 0.0)  # two empty sets without smoothing
    answered = (a != 0) & (b != 0)
    if not answered.all():
        both *= answered
    return both


def soft_iou(p: Floats, q: Floats, smoothing: float) -> Floats:
    """Return ``(sum of minima + s) / (sum of maxima + s)``, and 0 where either has no mass.

    The smoothed IoU for shares instead of sets; on shares of 0 and 1 both are equal.

    Parameters
    ----------
    p, q
        Shape (..., E), each share 0 to 1.
    smoothing
        s >= 0.

    Notes
    -----
    Ours. Without s it is Ruzicka's similarity (the weighted Jaccard index).
    """
    answered = (p.sum(axis=-1) > 0) & (q.sum(axis=-1) > 0)
    either = np.where(answered, np.maximum(p, q).sum(axis=-1) + smoothing, 1.0)
    out = (np.minimum(p, q).sum(axis=-1) + smoothing) / either
    return np.asarray(out * answered, np.float64)


def mean_agreement(masks: Masks, smoothing: float) -> Floats:
    """Return how much each set agrees with the others of its group.

    Parameters
    ----------
    masks
        Shape (N, G).
    smoothing
        s of the smoothed IoU.

    Returns
    -------
    numpy.ndarray
        Shape (N, G): ``mean over j != i of sIoU(P_i, P_j)``. Its mean over the group is the group's
        consistency C, the mean over all pairs. A lone set (G = 1) agrees with itself: 1, or 0 if
        it is empty.

    Notes
    -----
    Ours. Each pair is worked out once: the set *d* places on, for d up to G/2, many groups at once.
    """
    columns = np.ascontiguousarray(masks.T)
    size = columns.shape[0]
    if size == 1:
        return np.asarray(masks != 0, np.float64)
    total: Floats = np.zeros(columns.shape)
    for d in range(1, size // 2 + 1):
        if 2 * d == size:  # halfway round the ring each pair comes up from both ends
            pairs = smoothed_iou(columns[:d], columns[d:], smoothing)
            total[:d] += pairs
            total[d:] += pairs
            break
        ahead = smoothed_iou(columns[:-d], columns[d:], smoothing)
        total[:-d] += ahead
        total[d:] += ahead
        around = smoothed_iou(columns[-d:], columns[:d], smoothing)
        total[-d:] += around
        total[:d] += around
    agreement: Floats = (total / (size - 1)).T
    return agreement
