"""Near duplicates of responses, by MinHash and LSH."""

from __future__ import annotations

import random

import daft
import numpy as np
import pytest

from selfemo_jobs.stages.flywheel import near_duplicates as lsh
from selfemo_jobs.stages.flywheel.near_duplicates import band_rows, near_duplicates

LONG = "I really did not think that you would come all the way here just to see me today"


def duplicates_in(texts: dict[str, str], threshold: float = 0.8) -> set[str]:
    """Return the ids of the near duplicates among some texts by id."""
    frame = daft.from_pydict({"group_id": list(texts), "text": list(texts.values())})
    ids = near_duplicates(frame, threshold).to_pydict()["group_id"]
    assert len(ids) == len(set(ids))
    return set(ids)


def jaccard(one: str, other: str) -> float:
    def grams(text: str) -> set[str]:
        words = text.split()
        return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}

    a, b = grams(one), grams(other)
    return len(a & b) / len(a | b)


def test_of_near_texts_the_one_with_the_smallest_id_is_not_a_duplicate() -> None:
    texts = {
        "c": LONG + " again",
        "a": LONG,
        "b": "Nothing of the sort was ever said by me.",
        "d": "Oh no!",
    }
    assert duplicates_in(texts) == {"c"}


def test_case_spaces_and_punctuation_do_not_make_texts_different() -> None:
    assert duplicates_in({"a": "Oh, no!", "b": "oh  NO", "c": "oh yes"}) == {"b"}


def test_typography_does_not_make_texts_different() -> None:
    texts = {
        "a": "I can’t believe that you did it",
        "b": "I can't believe that you did it",
        "c": "Well … I suppose so — really",
        "d": "Well I suppose so really",
    }
    assert duplicates_in(texts) == {"b", "d"}


CHINESE = "我真的没有想到你会跑这么远的路就为了今天来看我一眼"


def test_near_texts_without_blanks_are_duplicates() -> None:
    texts = {
        "a": CHINESE,
        "b": CHINESE + "呢！",
        "c": "我从来没有说过这样的话，你听错了。",
        "d": "哎呀！",
        "e": "哎呀？",
        "f": "ＯＫ，走吧",
        "g": "OK 走吧！",
    }
    assert duplicates_in(texts) == {"b", "e", "g"}


def test_near_texts_of_other_scripts_are_duplicates() -> None:
    thai = "ฉันไม่เคยคิดเลยว่าคุณจะมาไกลขนาดนี้เพื่อพบฉันวันนี้"
    arabic = "لم أكن أتوقع أبدا أن تأتي كل هذه المسافة لرؤيتي اليوم"
    texts = {"a": thai, "b": thai + "นะ", "c": arabic, "d": arabic + "؟", "e": "مرحبا بكم"}
    assert duplicates_in(texts) == {"b", "d"}


def test_short_and_empty_texts_are_compared_as_a_whole() -> None:
    assert duplicates_in({"a": "yes", "b": "no", "c": "no", "d": "", "e": ""}) == {"c", "e"}


def test_with_a_threshold_of_1_only_equal_texts_are_duplicates() -> None:
    assert duplicates_in({"a": LONG, "b": LONG + " again", "c": LONG}, 1.0) == {"c"}


def test_an_empty_frame_gives_an_empty_frame() -> None:
    empty = daft.from_pydict({"group_id": ["a"], "text": ["b"]}).where(daft.lit(False))
    assert near_duplicates(empty, 0.8).to_pydict() == {"group_id": []}


def test_pairs_far_above_the_threshold_are_found_and_pairs_far_below_are_not() -> None:
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
    assert duplicates_in(texts) == near


def test_the_result_does_not_depend_on_the_size_of_the_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(7)
    sentences = [rng.choices("abcdefghijklmnopqrstuvwxyz", k=20) for _ in range(60)]
    texts = {}
    for index in range(300):
        words = list(sentences[index % 60])
        words[rng.randrange(20)] = f"w{index}"
        texts[f"{index:03d}"] = " ".join(words)
    whole = duplicates_in(texts, 0.6)
    assert 100 < len(whole) < 300
    monkeypatch.setattr(lsh, "BAND_ROWS", 1)  # one band at a time
    assert duplicates_in(texts, 0.6) == whole
    monkeypatch.setattr(lsh, "ROUND_PAIRS", 500)  # and several rounds in each
    assert duplicates_in(texts, 0.6) == whole


def test_the_estimate_is_near_the_true_jaccard_similarity() -> None:
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
        one, two = lsh._signatures(frame).sort("group_id").to_pydict()["signature"]
        equal = np.count_nonzero(np.asarray(one) == np.asarray(two))
        errors.append(equal / lsh.HASHES - jaccard(" ".join(text), " ".join(other)))
    assert abs(float(np.mean(errors))) < 0.02
    assert float(np.std(errors)) < 0.06


def test_the_comparisons_in_a_large_bucket_are_linear_in_its_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3,000 variants of one sentence share buckets: 4.5 million pairs in each of them."""
    compared = []
    count = lsh._count_equal

    def counting(left: daft.Series, right: daft.Series) -> daft.Series:
        compared.append(len(left))
        return count(left, right)

    recording = daft.func.batch(return_dtype=daft.DataType.int64(), use_process=False)(counting)
    monkeypatch.setattr(lsh, "_equal_hashes", recording)
    texts = {f"{i:05d}": f"{LONG} n{i}" for i in range(3_000)}
    duplicates = duplicates_in(texts, 0.7)
    buckets = lsh.HASHES // band_rows(0.7)
    assert sum(compared) <= 3_000 * buckets * lsh.BUCKET_RUN / 2
    assert len(duplicates) > 2_700
    assert "00000" not in duplicates


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_a_pair_at_the_threshold_is_found_with_the_required_chance(threshold: float) -> None:
    rows = band_rows(threshold)
    assert lsh.HASHES % rows == 0
    recall = 1 - (1 - threshold**rows) ** (lsh.HASHES // rows)
    assert recall >= lsh.RECALL


def test_the_size_of_rounds_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"{i:03d}": f"{LONG} n{i % 40} m{i % 7}" for i in range(200)}
    in_one_round = duplicates_in(texts)
    assert 100 < len(in_one_round) < 200
    monkeypatch.setattr(lsh, "ROUND_PAIRS", 2_000)
    assert duplicates_in(texts) == in_one_round
