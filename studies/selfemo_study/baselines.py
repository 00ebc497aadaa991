"""Controls without a language model: TF-IDF with a logistic regression, and one constant answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from selfemo_api.spec import Source
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.stages.evaluate.predictions import PREDICTIONS
from selfemo_study.programs import dialogues_of
from selfemo_study.row_record import CONTROL, DEV, TEST, Generation, Measured, RowResult
from selfemo_study.row_work import Work
from selfemo_study.study_config import Kind, Labeled
from selfemo_study.test_scores import f1_of

#: Inverse strengths of the regularization, among which dev chooses.
STRENGTHS = (1.0, 3.0, 10.0, 30.0)

Answer = Callable[[list[str]], Sequence[str]]
"""Utterances in, labels out."""


def run_words(work: Work) -> RowResult:
    """Do one of the two."""
    if work.row.kind is Kind.CONSTANT:
        label = str(work.row.label)
        return _finish(work, lambda texts: [label] * len(texts), 0.0, f"always {label}")
    count = work.share if work.row.labeled is Labeled.SHARE else len(work.training)
    texts, golds = _labelled(work.training[:count])
    began = time.monotonic()
    tried = []
    for strength in STRENGTHS:
        model = tfidf(strength).fit(texts, golds)
        tried.append((_read(work, work.dev_source, model.predict).f1, strength, model))
    _, strength, model = max(tried, key=lambda t: t[0])
    said = ", ".join(f"{s:g}: {f1:.4f}" for f1, s, _ in tried)
    note = f"C {strength:g} by dev ({said}), {count} dialogues"
    return _finish(work, model.predict, time.monotonic() - began, note)


def tfidf(strength: float) -> Any:
    """Return the model: words and characters of the utterance alone."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    return make_pipeline(
        make_union(words, characters), LogisticRegression(C=strength, max_iter=2000)
    )


def _labelled(dialogues: Sequence[Dialogue]) -> tuple[list[str], list[str]]:
    turns = [turn for dialogue in dialogues for turn in dialogue.turns if turn.labels]
    return [turn.text for turn in turns], [turn.labels[0] for turn in turns]


def _finish(work: Work, answer: Answer, seconds: float, note: str) -> RowResult:
    answers = {
        (1, DEV): _read(work, work.dev_source, answer),
        (1, TEST): _read(work, work.test_source, answer),
    }
    only = Generation(generation=1, outcome=CONTROL, seconds={Stage.TRAIN.value: round(seconds, 3)})
    return work.finish([only], answers, best=1, message=note)


def _read(work: Work, source: Source, answer: Answer) -> Measured:
    labels = work.base_spec.dataset.labels
    dialogues = dialogues_of(source, labels, work.data, read_labels=True)
    table = answered(dialogues, answer)
    return Measured(table, f1_of(table, labels))


def answered(dialogues: Sequence[Dialogue], answer: Answer) -> pa.Table:
    """Return the answers for all labeled utterances, as the Evaluate stage writes them."""
    places = [
        (dialogue.id, index, turn)
        for dialogue in dialogues
        for index, turn in enumerate(dialogue.turns)
        if turn.labels
    ]
    found = answer([turn.text for _, _, turn in places])
    rows = [
        {
            "dialogue_id": dialogue,
            "utterance": index,
            "gold": turn.labels[0],
            "answer": str(label),
            "named": str(label),
            "predicted": str(label),
            "well_formed": True,
        }
        for (dialogue, index, turn), label in zip(places, found, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=PREDICTIONS)
