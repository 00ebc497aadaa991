"""Near duplicates of responses: MinHash over word 3-grams and locality-sensitive hashing (LSH).

MinHash is Broder 1997. The division into bands is from Leskovec, Rajaraman and Ullman, *Mining of
Massive Datasets*, chapter 3. Memory and time are linear in the number of responses. This holds even
for a collapsing model that writes one sentence in a hundred thousand variants: identical texts are
merged first, and only groups of :data:`BUCKET_RUN` members of a large bucket are compared.
"""

from __future__ import annotations

from typing import Any

import daft
import numpy as np
from daft import DataFrame, Window, col
from daft import functions as F  # noqa: N812 (the name its own documentation uses)

from selfemo_jobs.rewards.word_units import spaced_text
from selfemo_jobs.stages.flywheel.dataframe_runner import materialize

#: Number of hashes in a signature. The standard error of the estimate at a Jaccard similarity of
#: 0.8 is then 0.035.
HASHES = 128
#: Words in an n-gram. Two texts that share runs of three words share phrases, and not only a topic.
#: In a script without blanks between words, each character is a word (``word_units``).
NGRAM_WORDS = 3
#: Smallest chance that a pair exactly at the threshold falls into a common bucket. For pairs above
#: the threshold the chance is higher.
RECALL = 0.9
#: Number of members of one bucket that are compared with each other. True near duplicates meet in
#: several buckets. Large buckets come from templates, whose members are mostly far apart.
BUCKET_RUN = 16
#: Largest number of pairs that are compared at once. With two signatures each they take half a
#: gigabyte.
ROUND_PAIRS = 500_000
#: Number of rows (one for each text and band) that are divided into buckets at once. Each takes
#: about a hundred bytes. More texts than this get one band at a time.
BAND_ROWS = 4_000_000
#: Seed of the hashes. It is fixed and does not depend on the run, because the same texts must count
#: as near duplicates in every generation.
_SEED = 1


def band_rows(threshold: float, hashes: int = HASHES, recall: float = RECALL) -> int:
    """Return the number of hashes in one band of a signature.

    A wider band gives fewer pairs to compare in vain. The result is the widest band that still
    finds a pair at the threshold t often enough:
    ``1 - (1 - t^r)^(hashes / r) >= recall``.

    Parameters
    ----------
    threshold
        The Jaccard similarity t, above 0 and at most 1.
    hashes
        Number of hashes in a signature.
    recall
        Smallest chance to find a pair at the threshold, from 0 to 1.

    Returns
    -------
    int
        The width r, a divisor of ``hashes``; 1 if no width reaches the recall.

    Examples
    --------
    >>> band_rows(0.8)
    8
    """
    widths = [r for r in range(hashes, 0, -1) if hashes % r == 0]
    wide_enough = (r for r in widths if 1.0 - (1.0 - threshold**r) ** (hashes // r) >= recall)
    return next(wide_enough, 1)


def near_duplicates(texts: DataFrame, threshold: float) -> DataFrame:
    """Return the groups whose text is a near duplicate of the text of a group with a smaller id.

    A group is returned if the text of any smaller group is near, whether that group is returned
    itself or not. The result depends only on pairs. The order of rows and the number of machines
    therefore do not change it, and no two of the groups that are not returned are near duplicates.

    Parameters
    ----------
    texts
        Columns ``group_id`` and ``text``, one row for each group.
    threshold
        Estimated Jaccard similarity from which two texts are near duplicates, above 0 and at most
        1.

    Returns
    -------
    DataFrame
        One column, ``group_id``. Each id occurs at most once.
    """
    normalized = F.normalize(
        _add_blanks(col("text")),
        remove_punct=True,
        lowercase=True,
        nfd_unicode=True,
        white_space=True,
    )
    texts = materialize(texts.select(col("group_id"), normalized.alias("text")))
    distinct = materialize(texts.groupby("text").agg(F.min(col("group_id")).alias("group_id")))
    same = texts.join(distinct.select("group_id"), on="group_id", how="anti").select("group_id")
    same = materialize(same)
    del texts  # `distinct` has those that are compared
    near = _near_pairs(distinct, threshold)
    return materialize(same.concat(near).distinct())


def _signature() -> Any:
    return F.minhash(col("text"), num_hashes=HASHES, ngram_size=NGRAM_WORDS, seed=_SEED)


def _signatures(texts: DataFrame) -> DataFrame:
    return materialize(texts.select(col("group_id"), _signature().alias("signature")))


def _near_pairs(texts: DataFrame, threshold: float) -> DataFrame:
    """Return the larger id of each near pair, in rounds of limited size."""
    width = band_rows(threshold)
    bands = HASHES // width
    keys = _band_keys(texts, width)
    at_once = min(bands, max(1, BAND_ROWS // max(1, keys.count_rows())))
    near = materialize(keys.select("group_id").where(daft.lit(False)))
    for first in range(0, bands, at_once):
        buckets = _buckets(keys, first, at_once)
        rounds = max(1, -(-buckets.count_rows() * BUCKET_RUN // (2 * ROUND_PAIRS)))
        for number in range(rounds):
            pairs = _pairs(buckets.where(col("bucket") % rounds == number))
            near_of_round = _compare(pairs, texts, threshold)
            near = materialize(near.concat(near_of_round).distinct())
    return near


def _band_keys(texts: DataFrame, width: int) -> DataFrame:
    """Return ``group_id, keys``: a hash of each band. It takes less memory than the signature."""
    keys = F.list_map(F.chunk(_signature(), width), F.hash(daft.element()))
    return materialize(texts.select(col("group_id"), keys.alias("keys")))


def _pairs(buckets: DataFrame) -> DataFrame:
    """Return ``group_id, larger`` of all members of the same run of a bucket; each pair once."""
    other = buckets.select(col("bucket"), col("run"), col("group_id").alias("larger"))
    pairs = buckets.join(other, on=["bucket", "run"]).where(col("group_id") < col("larger"))
    # computed here: the planner must know the size before it joins the wide signatures to it
    return materialize(pairs.select("group_id", "larger").distinct())


def _compare(pairs: DataFrame, texts: DataFrame, threshold: float) -> DataFrame:
    """Return the larger id of the pairs whose signatures are similar enough."""
    paired = pairs.select("group_id").concat(pairs.select(col("larger").alias("group_id")))
    signatures = _signatures(texts.join(paired.distinct(), on="group_id", how="semi"))
    left = signatures.select(col("group_id"), col("signature").alias("left"))
    right = signatures.select(col("group_id").alias("larger"), col("signature").alias("right"))
    compared = pairs.join(left, on="group_id").join(right, on="larger")
    near = _equal_hashes(col("left"), col("right")) >= threshold * HASHES
    return compared.where(near).select(col("larger").alias("group_id"))


def _buckets(keys: DataFrame, first: int, bands: int) -> DataFrame:
    """Return ``bucket, group_id, run`` of all groups that share a bucket of some bands."""
    some = F.slice(col("keys"), first, first + bands).alias("bucket")
    banded = keys.select(col("group_id"), some).explode("bucket")
    shared = (
        banded.groupby("bucket")
        .agg(F.count(col("group_id")).alias("members"))
        .where(col("members") > 1)
        .select("bucket")
    )
    banded = banded.join(materialize(shared), on="bucket", how="semi")
    position = F.row_number().over(Window().partition_by("bucket").order_by("group_id"))
    run = ((position.cast("int64") - 1) // BUCKET_RUN).alias("run")
    return materialize(banded.select(col("bucket"), col("group_id"), run))


def _count_equal(left: Any, right: Any) -> Any:
    """Return, for each row, at how many positions two signatures are equal."""
    return daft.Series.from_numpy(np.count_nonzero(_matrix(left) == _matrix(right), axis=1))


#: Runs in a thread: NumPy releases the interpreter, and another process would take time to start.
_equal_hashes = daft.func.batch(return_dtype=daft.DataType.int64(), use_process=False)(_count_equal)


def _spaced_texts(texts: Any) -> Any:
    """Return texts with blanks between their words; minhash splits at blanks alone."""
    return daft.Series.from_pylist([spaced_text(text or "") for text in texts.to_pylist()])


_add_blanks = daft.func.batch(return_dtype=daft.DataType.string(), use_process=False)(_spaced_texts)


def _matrix(series: Any) -> np.ndarray[Any, np.dtype[np.uint32]]:
    values = series.to_arrow().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.uint32).reshape(-1, HASHES)
