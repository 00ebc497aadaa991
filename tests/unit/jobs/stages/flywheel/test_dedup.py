"""Near-duplicate responses."""

from __future__ import annotations

import random

import daft
import numpy as np
import pytest

from selfemo_jobs.stages.flywheel import dedup
from selfemo_jobs.stages.flywheel.dedup import band_rows, near_duplicates

LONG = "I really did not think that you would come all the way here just to see me today"


def dropped(texts: dict[str, str], threshold: float = 0.8) -> set[str]:
    frame = daft.from_pydict({"group_id": list(texts), "text": list(texts.values())})
    found = near_duplicates(frame, threshold).to_pydict()["group_id"]
    assert len(found) == len(set(found))
    return set(found)


def jaccard(one: str, other: str) -> float:
    def grams(text: str) -> set[str]:
        words = text.split()
        return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}

    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)


def test_smallest_of_near_texts_stays() -> None:
    texts = {
        "c": LONG + " again",
        "a": LONG,
        "b": "Nothing of the sort was ever said by me.",
        "d": "Oh no!",
    }
    assert dropped(texts) == {"c"}


def test_case_spaces_and_punctuation_do_not_tell_texts_apart() -> None:
    assert dropped({"a": "Oh, no!", "b": "oh  NO", "c": "oh yes"}) == {"b"}


def test_short_and_empty_texts_are_compared_as_a_whole() -> None:
    assert dropped({"a": "yes", "b": "no", "c": "no", "d": "", "e": ""}) == {"c", "e"}


def test_threshold_one_drops_only_equal_texts() -> None:
    assert dropped({"a": LONG, "b": LONG + " again", "c": LONG}, 1.0) == {"c"}


def test_nothing_in_nothing_out() -> None:
    empty = daft.from_pydict({"group_id": ["a"], "text": ["b"]}).where(daft.lit(False))
    assert near_duplicates(empty, 0.8).to_pydict() == {"group_id": []}


def test_pairs_far_from_the_threshold_are_found_and_spared() -> None:
    rng = random.Random(3)
    words = [f"w{i}" for i in range(400)]
    texts: dict[str, str] = {}
    near, far = set(), set()
    for index in range(150):
        text = rng.choices(words, k=30)
        texts[f"{index:03d}"] = " ".join(text)
        close = [*text[:-1], "other"]  # one 3-gram of 28 differs
        texts[f"{index:03d}n"] = " ".join(close)
        near.add(f"{index:03d}n")
        apart = [*text[:15], *rng.choices(words, k=15)]
        texts[f"{index:03d}f"] = " ".join(apart)
        far.add(f"{index:03d}f")
    assert all(jaccard(texts[k[:3]], texts[k]) > 0.92 for k in near)
    assert all(jaccard(texts[k[:3]], texts[k]) < 0.4 for k in far)
    assert dropped(texts) == near


def test_estimate_is_near_the_jaccard() -> None:
    rng = random.Random(5)
    words = [f"w{i}" for i in range(300)]
    errors = []
    for _ in range(60):
        text = rng.choices(words, k=40)
        cut = rng.randrange(5, 40)
        other = [*text[:cut], *rng.choices(words, k=40 - cut)]
        frame = daft.from_pydict(
            {"group_id": ["a", "b"], "text": [" ".join(text), " ".join(other)]}
        )
        one, two = dedup._signatures(frame).sort("group_id").to_pydict()["signature"]
        equal = np.count_nonzero(np.asarray(one) == np.asarray(two))
        errors.append(equal / dedup.HASHES - jaccard(" ".join(text), " ".join(other)))
    assert abs(float(np.mean(errors))) < 0.02
    assert float(np.std(errors)) < 0.06


def test_large_bucket_of_one_template_stays_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """3,000 variants of a sentence in common buckets: all pairs would be 4.5 million a bucket."""
    compared = []
    count = dedup._count_equal

    def counting(left: daft.Series, right: daft.Series) -> daft.Series:
        compared.append(len(left))
        return count(left, right)

    spied = daft.func.batch(return_dtype=daft.DataType.int64(), use_process=False)(counting)
    monkeypatch.setattr(dedup, "_equal_hashes", spied)
    texts = {f"{i:05d}": f"{LONG} n{i}" for i in range(3_000)}
    gone = dropped(texts, 0.7)
    buckets = dedup.HASHES // band_rows(0.7)
    assert sum(compared) <= 3_000 * buckets * dedup.RUN / 2
    assert len(gone) > 2_700
    assert "00000" not in gone


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_a_pair_at_the_threshold(threshold: float) -> None:
    rows = band_rows(threshold)
    assert dedup.HASHES % rows == 0
    found = 1 - (1 - threshold**rows) ** (dedup.HASHES // rows)
    assert found >= dedup.RECALL


def test_rounds_of_any_size_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"{i:03d}": f"{LONG} n{i % 40} m{i % 7}" for i in range(200)}
    at_once = dropped(texts)
    assert 100 < len(at_once) < 200
    monkeypatch.setattr(dedup, "ROUND_PAIRS", 2_000)
    assert dropped(texts) == at_once
