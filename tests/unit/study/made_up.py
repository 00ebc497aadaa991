"""A small study and made-up results of its rows: no model is run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
)
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.measurements import (
    Measurement,
    Measurements,
    count_answers,
    weighted_f1_of,
    write_counts,
    write_predictions,
)
from selfemo_study.row_evolution import row_settings
from selfemo_study.row_result import CurvePoint, Generation, RowResult
from selfemo_study.study_config import Study
from selfemo_study.study_folders import StudyFolders

LABELS = ["neutral", "joy", "anger"]
SOURCE = {
    "name": "train",
    "use": "SelfPlay",
    "uri": "data://made/train.jsonl",
    "format": "JSONL",
}
#: An evaluation source.
TEST = {**SOURCE, "name": "test", "use": "Evaluation", "uri": "data://made/test.jsonl"}

DOCUMENT: dict[str, Any] = {
    "name": "made-up",
    "title": "Made up",
    "data": {"made": "."},
    "seeds": [1, 2],
    "headline": "main",
    "base": {"model": "tiny"},
    "warmStart": {"source": {**SOURCE, "use": "Labeled"}, "share": 0.5},
    "test": [TEST],
    "spec": {
        "recipe": "paper-v1",
        "model": {"prompts": "compact-v1"},
        "dataset": {
            "labels": LABELS,
            "sources": [
                {**SOURCE, "offset": 5},
                {**TEST, "name": "dev", "uri": "data://made/dev.jsonl"},
            ],
        },
    },
    "rows": [
        {"name": "main", "kind": "evolution", "why": "as it is"},
        {"name": "no-cap", "kind": "evolution", "why": "cap", "set": {"flywheel.maxShare": 1}},
        {"name": "majority", "kind": "majority", "why": "votes", "learningRates": [1e-4]},
        {"name": "constant", "kind": "constant", "why": "floor", "label": "neutral"},
    ],
}

#: A control that trains, and an evolution that starts from the model that it trained.
MORE = {"name": "more", "kind": "supervised", "why": "steps", "learningRates": [1e-4]}
AFTER = {"name": "after-more", "kind": "evolution", "why": "begins there", "after": "more"}


def write_data(folder: Path) -> DataVolumes:
    """Write the sources of the study: nine dialogues each, whose turns say their label."""
    for name in ("train", "dev", "test"):
        dialogues = [
            {
                "id": f"{name}-{number}",
                "turns": [
                    {"speaker": "AB"[turn % 2], "text": f"so {label}", "labels": [label]}
                    for turn, label in enumerate(LABELS)
                ],
            }
            for number in range(9)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(d) + "\n" for d in dialogues))
    return DataVolumes({"made": folder})


def study(**changes: Any) -> Study:
    return Study.model_validate({**DOCUMENT, **changes})


def answers(right: int, dialogues: int = 20, turns: int = 3) -> Measurement:
    """Answers in which the first `right` turns of every dialogue are correct."""
    rows = []
    for dialogue in range(dialogues):
        for turn in range(turns):
            gold = LABELS[(dialogue + turn) % len(LABELS)]
            wrong = LABELS[(dialogue + turn + 1) % len(LABELS)]
            answer = gold if turn < right else wrong
            rows.append(
                {
                    "dialogue_id": f"d{dialogue}",
                    "utterance": turn,
                    "gold": [gold],
                    "answer": answer,
                    "named": [answer],
                    "predicted": [answer],
                    "well_formed": True,
                }
            )
    table = pa.Table.from_pylist(rows, schema=PREDICTIONS)
    return Measurement(table, weighted_f1_of(table, LABELS))


def finish(
    made: Study,
    folders: StudyFolders,
    row: str,
    seed: int,
    right: Mapping[tuple[int, str], int],
    outcomes: Sequence[str],
    *,
    best: int,
    steps: int = 4,
    curve: Sequence[CurvePoint] = (),
) -> RowResult:
    """Write a finished row, as a run does. `right` is by generation and split."""
    measurements: Measurements = {key: answers(count) for key, count in right.items()}
    folder = folders.row(made.row(row), seed)
    folder.begin(row_settings(made, made.row(row), seed))
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
                dev=measurements[number, "dev"].f1,
                test=measurements[number, "test"].f1 if (number, "test") in measurements else None,
                seconds={"Train": 10.0, "Evaluate": 5.0} if number else {"Evaluate": 5.0},
                steps=steps if number else 0,
                kept_groups=7 if number else None,
            )
            for number, outcome in enumerate(outcomes)
        ],
        curve=list(curve),
        settings=row_settings(made, made.row(row), seed),
        versions={"selfemo": "0"},
    )
    write_predictions(folder.predictions, measurements)
    write_counts(folder.counts, count_answers(measurements, LABELS))
    folder.write(result)
    return result
