"""Sources with one label for each utterance keep the figures that they had before sets.

`one_label_answers.json` has invented answers, and the scores that the stage gave them then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.jobs.evaluation.one_label_reference import reference_score

from selfemo_api.results import SourceScore
from selfemo_api.spec import MultiLabel
from selfemo_jobs.engines.interface import Completion
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
)
from selfemo_jobs.evaluation.scoring import (
    compared_labels,
    compares_sets,
    prediction_counts,
    score_predictions,
)
from selfemo_jobs.inference.predictions import (
    LabeledPrompt,
    prediction_table,
)

LABELS = ("neutral", "joy", "fear", "anger")


@pytest.fixture(scope="module")
def recorded() -> Any:
    return json.loads((Path(__file__).parent / "one_label_answers.json").read_text())


def recorded_table(recorded: Any, *, more_gold: str = "") -> pa.Table:
    """Return the predictions for the recorded answers; `more_gold` is added as a second label."""
    prompts = [
        LabeledPrompt(dialogue, index, (gold, *([more_gold] if more_gold else ())), (1,))
        for dialogue, index, gold, _ in recorded["answers"]
    ]
    completions = [Completion((1,), (), a[-1], finished=True) for a in recorded["answers"]]
    return prediction_table(prompts, completions, recorded["labels"])


@pytest.mark.parametrize(("prior", "expected"), [("", "score"), ("prior", "weightedScore")])
@pytest.mark.parametrize("setting", [MultiLabel.AUTO, MultiLabel.NEVER])
def test_recorded_answers_keep_their_scores(
    recorded: Any, setting: MultiLabel, prior: str, expected: str
) -> None:
    table = recorded_table(recorded)
    sets = compares_sets(setting, table["gold"].to_pylist())
    assert not sets
    score = score_predictions(
        "dev",
        recorded["labels"],
        table,
        sets=sets,
        label_prior=recorded[prior] if prior else None,
        resamples=recorded["resamples"],
        seed=recorded["seed"],
    )
    # equal to the last digit, and no figure of sets is set
    assert score.model_dump(exclude_none=True) == recorded[expected]
    assert score == SourceScore.model_validate(recorded[expected])
    counts = prediction_counts(recorded["labels"], table, sets=sets)
    assert set(counts) == {"confusion", "support"}
    assert counts["confusion"] == recorded["confusion"]


def test_with_never_further_labels_change_nothing(recorded: Any) -> None:
    table = recorded_table(recorded, more_gold="joy")
    sets = compares_sets(MultiLabel.NEVER, table["gold"].to_pylist())
    options: dict[str, Any] = {"resamples": recorded["resamples"], "seed": recorded["seed"]}
    score = score_predictions("dev", recorded["labels"], table, sets=sets, **options)
    assert score == SourceScore.model_validate(recorded["score"])
    assert compares_sets(MultiLabel.AUTO, table["gold"].to_pylist())


ANSWERS = st.lists(
    st.tuples(
        st.integers(0, 5),  # the dialogue
        st.sampled_from(range(4)),  # the gold label
        st.lists(st.sampled_from(range(4)), max_size=3, unique=True),  # the labels of the answer
        st.sampled_from(range(4)),  # the nearest label of an answer that names none
    ),
    min_size=1,
    max_size=40,
)
PRIORS = st.none() | st.lists(st.floats(0.05, 1.0), min_size=4, max_size=4).map(
    lambda shares: dict(zip(LABELS, shares, strict=True))
)


@given(ANSWERS, PRIORS, st.integers(0, 2**32))
def test_any_answers_have_the_scores_that_they_had(
    answers: list[tuple[int, int, list[int], int]], prior: dict[str, float] | None, seed: int
) -> None:
    names = [LABELS[i] for i in range(4)]
    rows = [
        {
            "dialogue_id": f"d{dialogue}",
            "utterance": index,
            "gold": [names[gold]],
            "answer": "",
            "named": [names[i] for i in named],
            "predicted": [names[i] for i in named or [nearest]],
            "well_formed": True,
        }
        for index, (dialogue, gold, named, nearest) in enumerate(answers)
    ]
    table = pa.Table.from_pylist(rows, schema=PREDICTIONS)
    sets = compares_sets(MultiLabel.AUTO, table["gold"].to_pylist())
    options: dict[str, Any] = {"resamples": 25, "seed": seed}
    score = score_predictions("dev", LABELS, table, sets=sets, label_prior=prior, **options)
    numbers = {d: i for i, d in enumerate(dict.fromkeys(d for d, *_ in answers))}
    expected = reference_score(
        LABELS,
        np.array([numbers[dialogue] for dialogue, *_ in answers]),
        np.array([gold for _, gold, _, _ in answers]),
        np.array([named[0] if named else -1 for _, _, named, _ in answers]),
        np.array([named[0] if named else nearest for _, _, named, nearest in answers]),
        prior,
        25,
        seed,
    )
    if len(numbers) == 1:  # a single dialogue says nothing about others
        whole = {"weighted_f1_low": 0.0, "weighted_f1_high": 1.0}
        expected = expected.model_copy(update=whole)
    assert score == expected
    assert score.jaccard is None


def test_which_sources_are_compared_by_sets() -> None:
    one, several = [["joy"], ["fear"]], [["joy"], ["fear", "joy"]]
    assert [compares_sets(setting, one) for setting in MultiLabel] == [False, True, False]
    assert [compares_sets(setting, several) for setting in MultiLabel] == [True, True, False]
    assert compared_labels(("fear", "joy"), sets=False) == ("fear",)
    assert compared_labels(("fear", "joy"), sets=True) == ("fear", "joy")
