"""The training process of the row kind `adamatch`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from selfemo_api.spec import EvolutionSpec
from selfemo_jobs.models.fetch import load_model
from selfemo_study import adamatch_worker
from selfemo_study.study_config import StudyError
from selfemo_study.worker_rows import TrainingJob

LABELS = ("neutral", "joy", "anger")


def write_dialogues(path: Path, count: int, *, labels: bool) -> str:
    lines = []
    for i in range(count):
        turns = [
            {
                "speaker": "AB"[turn % 2],
                "text": f"turn {turn} of dialogue {i} is said",
                **({"labels": [LABELS[(i + turn) % 3]]} if labels else {}),
            }
            for turn in range(3)
        ]
        lines.append(json.dumps({"id": f"d{i}", "turns": turns}) + "\n")
    path.write_text("".join(lines))
    return f"file://{path}"


@pytest.fixture
def job(make_spec: Callable[..., EvolutionSpec], tiny_model: Path, tmp_path: Path) -> TrainingJob:
    few = write_dialogues(tmp_path / "few.jsonl", 3, labels=True)
    many = write_dialogues(tmp_path / "many.jsonl", 5, labels=False)
    spec = make_spec(
        dataset={
            "labels": list(LABELS),
            "labelPrior": {"neutral": 0.5, "joy": 0.25, "anger": 0.25},
            "sources": [
                {"name": "many", "use": "SelfPlay", "uri": many, "format": "JSONL"},
                {"name": "few", "use": "Labeled", "uri": few, "format": "JSONL"},
                {"name": "dev", "use": "Evaluation", "uri": few, "format": "JSONL"},
            ],
        },
        reward={"judge": {"views": [{"past": 1, "future": 1}]}},
        training={"trainLayers": 1, "optimizer": {"learningRate": 1e-2}},
    )
    return TrainingJob(spec=spec, policy=tiny_model, output=tmp_path, steps=3, keep=[1, 3])


def test_it_trains_the_last_layers_and_stores_their_average(job: TrainingJob) -> None:
    torch.manual_seed(0)
    checkpoints = adamatch_worker.train(job)
    assert [checkpoint.step for checkpoint in checkpoints] == [1, 3]
    assert [checkpoint.examples for checkpoint in checkpoints] == [48, 144]
    folders = [job.output / "models" / f"step-{step:06d}" for step in (1, 3)]
    start, first, last = (
        load_model(folder, torch.float32).state_dict() for folder in (job.policy, *folders)
    )
    moved = [name for name in start if not torch.equal(start[name], last[name])]
    assert moved and all(".3." in name or name.endswith("model.norm.weight") for name in moved)
    # an average of the first step keeps most of the first weights
    name = moved[0]
    assert 0 < (first[name] - start[name]).abs().max() < 1e-3
    assert (last[name] - start[name]).abs().max() > (first[name] - start[name]).abs().max()


def test_labels_and_sources_that_it_cannot_use_are_refused(
    job: TrainingJob, make_spec: Callable[..., EvolutionSpec]
) -> None:
    few, many = (source for source in job.spec.dataset.sources if source.name in ("few", "many"))
    for sources, prior, message in (
        ([many], job.spec.dataset.label_prior, "a labeled source and one without labels"),
        ([few, many], None, "require `dataset.labelPrior`"),
    ):
        dataset = job.spec.dataset.model_copy(update={"sources": sources, "label_prior": prior})
        spec = job.spec.model_copy(update={"dataset": dataset})
        with pytest.raises(StudyError, match=message):
            adamatch_worker.train(job.model_copy(update={"spec": spec}))


def test_aligned_predictions_have_the_prior_where_the_mean_was_right() -> None:
    predictions = np.array([[0.7, 0.3], [0.9, 0.1]])
    shares = adamatch_worker.aligned(predictions, predictions.mean(axis=0), np.array([0.5, 0.5]))
    assert shares[0].argmax() == 1 and shares[1].argmax() == 0
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


def test_a_strong_view_leaves_out_words_but_never_all() -> None:
    chance = random.Random(1)
    words = "one two three four five six seven eight nine ten"
    kept = [len(adamatch_worker.weakened(words, chance).split()) for _ in range(300)]
    assert 8.2 < np.mean(kept) < 8.8
    assert {adamatch_worker.weakened("Hey", chance) for _ in range(50)} == {"Hey"}
    assert adamatch_worker.weakened("", chance) == ""
