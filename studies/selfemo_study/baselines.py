"""Controls without a language model: TF-IDF with a logistic regression, and one constant answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from selfemo_api.spec import Source
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.evaluation.prediction_table import (
    PREDICTIONS,
)
from selfemo_study.data_volumes import load_dialogues
from selfemo_study.measurements import Measurement, weighted_f1_of
from selfemo_study.row_result import CONTROL, DEV, TEST, Generation, RowResult
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import Kind, Labeled

#: Inverse strengths of the regularization, of which dev selects one.
STRENGTHS = (1.0, 3.0, 10.0, 30.0)

Predict = Callable[[list[str]], Sequence[str]]
"""Returns one label for each utterance."""


def run_simple_baseline(task: RowTask) -> RowResult:
    """Fit and measure a control without a language model.

    Parameters
    ----------
    task
        A row of kind `tfidf` or `constant`.

    Raises
    ------
    StudyError
        If self-play and the labeled subset overlap.
    """
    if task.row.kind is Kind.CONSTANT:
        label = str(task.row.label)
        return _finish(task, lambda texts: [label] * len(texts), 0.0, f"always {label}")
    uses_share = task.row.labeled is Labeled.SHARE
    count = task.labeled_dialogues if uses_share else len(task.training_dialogues)
    began = time.monotonic()
    tfidf = select_tfidf(task, task.training_dialogues[:count])
    message = f"{tfidf.message}, {count} dialogues"
    return _finish(task, tfidf.model.predict, time.monotonic() - began, message)


@dataclass(frozen=True)
class Tfidf:
    """A fitted classifier of texts."""

    model: Any
    message: str
    """How dev selected the strength of its regularization."""


def select_tfidf(task: RowTask, dialogues: Sequence[Dialogue]) -> Tfidf:
    """Return the classifier of words and characters that is best on dev.

    Parameters
    ----------
    task
        A row of the study, for its dev source.
    dialogues
        The labeled dialogues to fit.
    """
    texts, labels = _labeled_texts(dialogues)
    fitted = []
    for strength in STRENGTHS:
        model = tfidf_model(strength).fit(texts, labels)
        fitted.append((_measure(task, task.dev_source, model.predict).f1, strength, model))
    _, strength, model = max(fitted, key=lambda t: t[0])
    dev_by_strength = ", ".join(f"{s:g}: {f1:.4f}" for f1, s, _ in fitted)
    return Tfidf(model, f"C {strength:g} by dev ({dev_by_strength})")


def tfidf_model(strength: float) -> Any:
    """Return a classifier on the words and characters of an utterance, without its context.

    Parameters
    ----------
    strength
        The inverse strength of the regularization, above 0.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return make_pipeline(
        make_union(words, characters), LogisticRegression(C=strength, max_iter=2000)
    )


def _labeled_texts(dialogues: Sequence[Dialogue]) -> tuple[list[str], list[str]]:
    turns = [turn for dialogue in dialogues for turn in dialogue.turns if turn.labels]
    return [turn.text for turn in turns], [turn.labels[0] for turn in turns]


def _finish(task: RowTask, predict: Predict, seconds: float, message: str) -> RowResult:
    measurements = {
        (1, DEV): _measure(task, task.dev_source, predict),
        (1, TEST): _measure(task, task.test_source, predict),
    }
    train_seconds = {Stage.TRAIN.value: round(seconds, 3)}
    generation = Generation(generation=1, outcome=CONTROL, seconds=train_seconds)
    return task.finish([generation], measurements, best=1, message=message)


def _measure(task: RowTask, source: Source, predict: Predict) -> Measurement:
    dataset = task.base_spec.dataset
    dialogues = load_dialogues(dataset, source, task.volumes, read_labels=True)
    table = answer_table(dialogues, predict)
    return Measurement(table, weighted_f1_of(table, dataset.labels))


def answer_table(dialogues: Sequence[Dialogue], predict: Predict) -> pa.Table:
    """Return the answers for all labeled utterances, as the Evaluate stage writes them.

    Parameters
    ----------
    dialogues
        The dialogues to measure on.
    predict
        A function that returns one label for each utterance.
    """
    utterances = [
        (dialogue.id, index, turn)
        for dialogue in dialogues
        for index, turn in enumerate(dialogue.turns)
        if turn.labels
    ]
    answers = predict([turn.text for _, _, turn in utterances])
    lines = [
        {
            "dialogue_id": dialogue,
            "utterance": index,
            "gold": turn.labels,
            "answer": str(label),
            "named": [str(label)],
            "predicted": [str(label)],
            "well_formed": True,
        }
        for (dialogue, index, turn), label in zip(utterances, answers, strict=True)
    ]
    return pa.Table.from_pylist(lines, schema=PREDICTIONS)
