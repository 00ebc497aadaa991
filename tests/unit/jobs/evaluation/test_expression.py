"""Figures of expression: shares, intervals, changes, and what the responses are like."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from selfemo_jobs.evaluation.expression import (
    counts_by_dialogue,
    expression_change,
    expression_score,
    rows_of_humans,
    rows_of_responses,
    shares_by_label,
)
from selfemo_jobs.evaluation.expression_tables import READINGS, RESPONSES

LABELS = ["joy", "fear", "anger"]


def responses_of(texts: Sequence[str], dialogues: int = 2) -> pa.Table:
    """Return responses: each dialogue has one for each label, with the texts in turn."""
    text = itertools.cycle(texts)
    rows = [
        {
            "dialogue_id": f"d{dialogue}",
            "utterance": 3,
            "speaker": "Ann",
            "intended": label,
            "response": next(text),
            "tokens": 5,
            "well_formed": label != "anger",
        }
        for dialogue in range(dialogues)
        for label in LABELS
    ]
    return pa.Table.from_pylist(rows, schema=RESPONSES)


def row(intended: str, read: str | None, *, dialogue: str = "d0", **more: Any) -> dict[str, Any]:
    probabilities = [0.7 if label == read else 0.15 for label in LABELS] if read else []
    return {
        "human": False,
        "dialogue_id": dialogue,
        "utterance": 3,
        "intended": intended,
        "read": read,
        "probabilities": probabilities,
        "as_intended": intended == read,
        **more,
    }


def readings_of(
    read: Sequence[Sequence[str | None]], humans: Sequence[dict[str, Any]] = ()
) -> pa.Table:
    """Return readings: what is read in the response of each dialogue to each label."""
    rows = [
        row(label, emotion, dialogue=f"d{dialogue}")
        for dialogue, emotions in enumerate(read)
        for label, emotion in zip(LABELS, emotions, strict=True)
    ]
    return pa.Table.from_pylist([*rows, *humans], schema=READINGS)


def human(label: str, read: str) -> dict[str, Any]:
    return row(label, read, dialogue="h", human=True)


def test_the_share_is_over_all_responses_and_by_emotion() -> None:
    readings = readings_of([["joy", "joy", "anger"], ["fear", None, "anger"]])
    score = expression_score(
        "dev", LABELS, responses_of(["what a day"]), readings, resamples=0, seed=0
    )
    assert (score.responses, score.dialogues) == (6, 2)
    assert score.as_intended == 0.5
    assert score.as_intended_by_label == [0.5, 0.0, 1.0]
    assert score.as_intended_low is None
    assert score.human is None
    assert score.consistency == pytest.approx(0.7), "an empty response has no reading"


def test_real_turns_are_the_mean_over_the_emotions_that_there_are() -> None:
    humans = [human("joy", "joy"), human("joy", "joy"), human("joy", "fear"), human("fear", "joy")]
    readings = readings_of([["fear"] * 3, ["fear"] * 3], humans)
    score = expression_score("dev", LABELS, responses_of(["a b"]), readings, resamples=0, seed=0)
    assert score.human == pytest.approx((2 / 3 + 0) / 2, abs=1e-6)
    assert score.human_turns == 4
    assert score.as_intended == pytest.approx(1 / 3, abs=1e-6), "human turns are not responses"
    assert rows_of_humans(readings).num_rows == 4
    assert rows_of_responses(readings).num_rows == 6


def test_what_the_responses_are_like() -> None:
    texts = ["I am so angry at you", "no fear here", "anger is all I have"]
    readings = readings_of([["joy"] * 3] * 2)
    score = expression_score("dev", LABELS, responses_of(texts), readings, resamples=0, seed=0)
    # of joy, fear and anger, the second and the third one are named: "angry" is not a form of joy
    assert score.named == pytest.approx(2 / 3, abs=1e-6)
    assert score.words == pytest.approx((6 + 3 + 5) / 3, abs=1e-6)
    pairs = 5 + 2 + 4
    assert score.diversity == pytest.approx(pairs / (2 * pairs)), "each text is there twice"
    assert score.well_formed == pytest.approx(2 / 3, abs=1e-6)


def test_the_interval_is_over_whole_dialogues() -> None:
    """Dialogues that are all alike leave nothing to chance, whatever their responses are."""
    alike = readings_of([["joy", "joy", "joy"]] * 8)
    responses = responses_of(["a b"], dialogues=8)
    score = expression_score("dev", LABELS, responses, alike, resamples=200, seed=1)
    assert score.as_intended_low == score.as_intended_high == pytest.approx(1 / 3, abs=1e-6)
    split = readings_of([LABELS] * 4 + [["fear", "anger", "joy"]] * 4)
    score = expression_score("dev", LABELS, responses, split, resamples=200, seed=1)
    assert score.as_intended == 0.5
    assert score.as_intended_low is not None
    assert score.as_intended_high is not None
    assert 0.0 < score.as_intended_low < 0.5 < score.as_intended_high < 1.0
    again = expression_score("dev", LABELS, responses, split, resamples=200, seed=1)
    assert again == score


def test_a_change_is_paired_by_dialogue() -> None:
    """Each dialogue gains the same: the interval of the change has no width."""
    before = readings_of([["joy", "joy", "joy"]] * 4 + [["fear", "joy", "joy"]] * 4)
    after = readings_of([["joy", "fear", "joy"]] * 4 + [["joy", "joy", "joy"]] * 4)
    change = expression_change(before, after, 0, resamples=300, seed=3)
    assert change is not None
    assert change.generation == 0
    assert change.change == change.low == change.high == pytest.approx(1 / 3, abs=1e-6)
    plain = expression_change(before, after, 2, resamples=0, seed=3)
    assert plain is not None
    assert (plain.generation, plain.change, plain.low) == (2, change.change, None)
    lost = expression_change(after, before, 0, resamples=0, seed=3)
    assert lost is not None
    assert lost.change == -change.change


def test_other_contexts_are_not_compared() -> None:
    before = readings_of([["joy", "joy", "joy"]] * 2)
    assert expression_change(before, readings_of([LABELS] * 3), 0, resamples=0, seed=0) is None
    moved = [{**one, "utterance": 4} for one in before.to_pylist()]
    other = pa.Table.from_pylist(moved, schema=READINGS)
    assert expression_change(before, other, 0, resamples=0, seed=0) is None
    with_humans = readings_of([LABELS] * 2, [human("joy", "joy")])
    assert expression_change(before, with_humans, 0, resamples=0, seed=0) is not None


def test_counts_and_shares_of_nothing() -> None:
    empty = READINGS.empty_table()
    assert counts_by_dialogue(empty).shape == (0, 2)
    assert shares_by_label(empty, LABELS) == [None, None, None]
    assert np.array_equal(
        counts_by_dialogue(readings_of([LABELS, ["joy"] * 3])), [[3.0, 3.0], [1.0, 3.0]]
    )
