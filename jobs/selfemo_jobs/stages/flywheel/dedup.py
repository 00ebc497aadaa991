"""Near-duplicate responses: MinHash over word 3-grams, found by locality-sensitive hashing.

MinHash is Broder 1997; the banding is Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*,
chapter 3. Memory and time stay linear in the number of responses, also where a collapsing model
writes one sentence in a hundred thousand variants: identical texts are folded first, and a large
bucket is compared in runs of :data:`RUN`.
"""

from __future__ import annotations

from typing import Any

import daft
import numpy as np
from daft import DataFrame, Window, col
from daft import functions as F  # noqa: N812 (the name its own documentation uses)

from selfemo_jobs.stages.flywheel.dataframe_runner import materialize

#: Permutations: the estimate's standard error at a Jaccard of 0.8 is then 0.035.
HASHES = 128
#: Words in an n-gram. Two texts that share runs of three words share phrases, not only topics.
NGRAM = 3
#: Chance that a pair exactly at the threshold falls into a common bucket, at least; a pair above
#: it is found with more.
RECALL = 0.9
#: Members of one bucket that are compared with each other. True near-duplicates meet in several
#: buckets; larger buckets come from templates whose members are mostly far apart.
RUN = 16
#: Pairs compared at once, at most; with two signatures each they take half a gigabyte.
ROUND_PAIRS = 500_000
#: Fixed, not the run's seed: which texts count as near must not differ between generations.
_SEED = 1


def band_rows(threshold: float, hashes: int = HASHES, recall: float = RECALL) -> int:
    """Return how many hashes make one band.

    The widest band (fewest false candidates) that still finds a pair at the threshold t with
    probability ``1 - (1 - t^r)^(hashes / r) >= recall``; 1 where none does.
    """
    widths = [r for r in range(hashes, 0, -1) if hashes % r == 0]
    found = (r for r in widths if 1.0 - (1.0 - threshold**r) ** (hashes // r) >= recall)
    return next(found, 1)


def near_duplicates(texts: DataFrame, threshold: float) -> DataFrame:
    """Return the groups whose response is near to that of a group with a smaller id.

    A group goes if any smaller group of the input is near it, kept or not: the answer depends on
    pairs only, so neither the order of rows nor the number of machines changes it, and no two of
    the groups that stay are near each other.

    Parameters
    ----------
    texts
        Columns ``group_id`` and ``text``, one row a group.
    threshold
        Estimated Jaccard similarity from which two texts are one, over 0 and at most 1.

    Returns
    -------
    DataFrame
        One column, ``group_id``; each at most once.
    """
    plain = F.normalize(
        col("text"), remove_punct=True, lowercase=True, nfd_unicode=True, white_space=True
    )
    texts = materialize(texts.select(col("group_id"), plain.alias("text")))
    leaders = materialize(texts.groupby("text").agg(F.min(col("group_id")).alias("group_id")))
    same = texts.join(leaders.select("group_id"), on="group_id", how="anti").select("group_id")
    near = _near_pairs(_signatures(leaders), threshold)
    return materialize(same.concat(near).distinct())


def _signatures(texts: DataFrame) -> DataFrame:
    signature = F.minhash(col("text"), num_hashes=HASHES, ngram_size=NGRAM, seed=_SEED)
    return materialize(texts.select(col("group_id"), signature.alias("signature")))


def _near_pairs(signatures: DataFrame, threshold: float) -> DataFrame:
    """Return the larger id of each near pair, in rounds of bounded size."""
    buckets = _buckets(signatures, band_rows(threshold))
    rounds = max(1, -(-buckets.count_rows() * RUN // (2 * ROUND_PAIRS)))
    near = materialize(signatures.select("group_id").where(daft.lit(False)))
    for number in range(rounds):
        of_round = buckets.where(col("bucket") % rounds == number)
        found = _compare(_pairs(of_round), signatures, threshold)
        near = materialize(near.concat(found).distinct())
    return near


def _pairs(buckets: DataFrame) -> DataFrame:
    """Return ``group_id, larger`` of all that share a run of a bucket; each pair once."""
    other = buckets.select(col("bucket"), col("run"), col("group_id").alias("larger"))
    pairs = buckets.join(other, on=["bucket", "run"]).where(col("group_id") < col("larger"))
    # computed here: the planner must know the size before it joins the wide signatures to it
    return materialize(pairs.select("group_id", "larger").distinct())


def _compare(pairs: DataFrame, signatures: DataFrame, threshold: float) -> DataFrame:
    left = signatures.select(col("group_id"), col("signature").alias("left"))
    right = signatures.select(col("group_id").alias("larger"), col("signature").alias("right"))
    compared = pairs.join(left, on="group_id").join(right, on="larger")
    near = _equal_hashes(col("left"), col("right")) >= threshold * HASHES
    return compared.where(near).select(col("larger").alias("group_id"))


def _buckets(signatures: DataFrame, width: int) -> DataFrame:
    """Return ``bucket, run, group_id`` of all groups that share a bucket with another."""
    keys = F.list_map(F.chunk(col("signature"), width), F.hash(daft.element()))
    banded = signatures.select(col("group_id"), keys.alias("bucket")).explode("bucket")
    shared = (
        banded.groupby("bucket")
        .agg(F.count(col("group_id")).alias("members"))
        .where(col("members") > 1)
        .select("bucket")
    )
    banded = banded.join(materialize(shared), on="bucket", how="semi")
    position = F.row_number().over(Window().partition_by("bucket").order_by("group_id"))
    run = ((position.cast("int64") - 1) // RUN).alias("run")
    return materialize(banded.select(col("bucket"), col("group_id"), run))


def _count_equal(left: Any, right: Any) -> Any:
    """Return in how many places two signatures agree, row by row."""
    return daft.Series.from_numpy(np.count_nonzero(_matrix(left) == _matrix(right), axis=1))


#: In a thread: numpy lets go of the interpreter, and a process of its own would cost its start.
_equal_hashes = daft.func.batch(return_dtype=daft.DataType.int64(), use_process=False)(_count_equal)


def _matrix(series: Any) -> np.ndarray[Any, np.dtype[np.uint32]]:
    values = series.to_arrow().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.uint32).reshape(-1, HASHES)
