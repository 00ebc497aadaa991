"""A small study and what its rows might have come to: no model is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from selfemo_jobs.stages.evaluate.predictions import PREDICTIONS
from selfemo_study.paths import Places, asked_for
from selfemo_study.row_record import (
    Answers,
    CurvePoint,
    Generation,
    Measured,
    RowResult,
    counted,
    write_counts,
    write_predictions,
)
from selfemo_study.study_config import Study
from selfemo_study.test_scores import f1_of

LABELS = ["neutral", "joy", "anger"]
SOURCE = {"name": "train", "uri": "data://made/train.jsonl", "format": "JSONL"}

DOCUMENT: dict[str, Any] = {
    "name": "made-up",
    "title": "Made up",
    "data": {"made": "."},
    "seeds": [1, 2],
    "headline": "main",
    "base": {"model": "tiny"},
    "warmStart": {"source": SOURCE, "share": 0.5},
    "test": [{"name": "test", "uri": "data://made/test.jsonl", "format": "JSONL"}],
    "spec": {
        "model": {"prompts": "compact-v1"},
        "dataset": {
            "labels": LABELS,
            "selfPlay": [{**SOURCE, "firstDialogue": 5}],
            "evaluation": [{"name": "dev", "uri": "data://made/dev.jsonl", "format": "JSONL"}],
        },
    },
    "rows": [
        {"name": "main", "kind": "evolution", "why": "as it is"},
        {"name": "no-cap", "kind": "evolution", "why": "cap", "set": {"flywheel.maxShare": 1}},
        {"name": "majority", "kind": "majority", "why": "votes", "learningRates": [1e-4]},
        {"name": "constant", "kind": "constant", "why": "floor", "label": "neutral"},
    ],
}

#: A control that trains, and an evolution that begins with what it has trained.
MORE = {"name": "more", "kind": "supervised", "why": "steps", "learningRates": [1e-4]}
AFTER = {"name": "after-more", "kind": "evolution", "why": "begins there", "after": "more"}


def study(**changes: Any) -> Study:
    return Study.model_validate({**DOCUMENT, **changes})


def answers(right: int, dialogues: int = 20, turns: int = 3) -> Measured:
    """Answers of which every dialogue has the first `right` turns right."""
    rows = []
    for dialogue in range(dialogues):
        for turn in range(turns):
            gold = LABELS[(dialogue + turn) % len(LABELS)]
            wrong = LABELS[(dialogue + turn + 1) % len(LABELS)]
            said = gold if turn < right else wrong
            rows.append(
                {
                    "dialogue_id": f"d{dialogue}",
                    "utterance": turn,
                    "gold": gold,
                    "answer": said,
                    "named": said,
                    "predicted": said,
                    "well_formed": True,
                }
            )
    table = pa.Table.from_pylist(rows, schema=PREDICTIONS)
    return Measured(table, f1_of(table, LABELS))


def finish(
    made: Study,
    places: Places,
    row: str,
    seed: int,
    right: Mapping[tuple[int, str], int],
    outcomes: Sequence[str],
    *,
    best: int,
    steps: int = 4,
    curve: Sequence[CurvePoint] = (),
) -> RowResult:
    """Leave a finished row behind, as a run does. `right` is by generation and split."""
    found: Answers = {key: answers(count) for key, count in right.items()}
    folder = places.row(made.row(row), seed)
    folder.begin(asked_for(made, made.row(row), seed))
    result = RowResult(
        study=made.name,
        row=row,
        kind=made.row(row).kind.value,
        seed=seed,
        phase="Succeeded",
        best=best,
        generations=[
            Generation(
                generation=number,
                outcome=outcome,
                dev=found[number, "dev"].f1,
                test=found[number, "test"].f1 if (number, "test") in found else None,
                seconds={"Train": 10.0, "Evaluate": 5.0} if number else {"Evaluate": 5.0},
                steps=steps if number else 0,
                kept_groups=7 if number else None,
            )
            for number, outcome in enumerate(outcomes)
        ],
        curve=list(curve),
        asked=asked_for(made, made.row(row), seed),
        versions={"selfemo": "0"},
    )
    write_predictions(folder.predictions, found)
    write_counts(folder.counts, counted(found, LABELS))
    folder.write(result)
    return result
