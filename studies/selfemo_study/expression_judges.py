"""Judges that the evolution never sees, and what they read in the stored responses of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage, stage_prefix
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.evaluation.expression import (
    counts_by_dialogue,
    rows_of_humans,
    rows_of_responses,
    shares_by_label,
)
from selfemo_jobs.evaluation.metrics import rounded
from selfemo_jobs.inference.targets import Target
from selfemo_jobs.rewards.diversity import count_bigrams, distinct_bigrams_of
from selfemo_jobs.runtime.manifest import MANIFEST
from selfemo_jobs.stages.evaluate.expression_readings import (
    human_targets,
    read_targets,
    response_targets,
)
from selfemo_jobs.stages.evaluate.expression_sample import HumanTurn
from selfemo_study.baselines import select_tfidf
from selfemo_study.control_rows import selected_model
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.expression_answers import answered_contexts, opened_engine
from selfemo_study.expression_counts import (
    BASELINE_JUDGE,
    CEILING_JUDGE,
    TFIDF_JUDGE,
    JudgedGeneration,
    JudgePredictions,
    ResponseFigures,
    RowExpression,
    StudyExpression,
)
from selfemo_study.expression_files import (
    StoredExpression,
    settings_sha256,
    stored_expression,
)
from selfemo_study.finished_rows import has_stale_result
from selfemo_study.row_evolution import row_settings
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import Kind, Row, Study, StudyError, base_row
from selfemo_study.study_folders import StudyFolders


class Judge(Protocol):
    """A judge that reads turns."""

    @property
    def name(self) -> str:
        """The name of the judge."""
        ...

    def read(self, targets: Sequence[Target | None]) -> list[str | None]:
        """Return the emotion that each turn expresses; None where there is nothing to read.

        Parameters
        ----------
        targets
            The turns, each with the turns before it. None: there is nothing to read.
        """
        ...


@dataclass(frozen=True)
class TfidfJudge:
    """Words and characters of a turn, with a logistic regression. It does not see the context."""

    model: Any
    """A fitted classifier of texts, see :func:`selfemo_study.baselines.tfidf_model`."""
    name: str = TFIDF_JUDGE

    def read(self, targets: Sequence[Target | None]) -> list[str | None]:
        """Return the emotion of each turn; see :class:`Judge`."""
        texts = [target.turn.text for target in targets if target is not None]
        labels = iter(self.model.predict(texts) if texts else ())
        return [None if target is None else str(next(labels)) for target in targets]


@dataclass(frozen=True)
class ModelJudge:
    """A recognizer: it reads a turn after its context, and its most probable emotion counts."""

    folder: Path
    """The folder of the model."""
    spec: EvolutionSpec
    """The spec with the prompts, the labels and the engine."""
    name: str = CEILING_JUDGE

    def read(self, targets: Sequence[Target | None]) -> list[str | None]:
        """Return the emotion of each turn; see :class:`Judge`. The model is loaded for it."""
        with opened_engine(self.folder, self.spec) as engine:
            readings = read_targets(engine, self.spec, targets)
        return [max(one, key=lambda label: one[label]) if one else None for one in readings]


def judge_study(
    study: Study,
    folders: StudyFolders,
    volumes: DataVolumes,
    names: Sequence[str],
    seeds: Sequence[int],
    report: Callable[[str], None],
    contexts: int | None = None,
) -> StudyExpression:
    """Let the independent judges read the responses of finished evolution rows.

    Parameters
    ----------
    study
        The study.
    folders
        The study's folders.
    volumes
        The data volumes.
    names
        The names of the rows. Rows of other kinds, and rows that are not finished or have no
        responses, are left out.
    seeds
        The seeds.
    report
        Prints a line.
    contexts
        Generation 0 and the best generation answer so many contexts of dev. None: the judges read
        the responses of all generations that the evaluations stored.

    Raises
    ------
    StudyError
        If no ceiling row is finished here, or the models of a row are missing.
    """
    tasks = [
        RowTask(study, study.row(name), seed, folders, volumes)
        for name in names
        for seed in seeds
        if _is_finished(study, folders, study.row(name), seed)
    ]
    responses = {
        (task.row.name, task.seed): answered_contexts(task, contexts)
        if contexts
        else _stored_generations(task)
        for task in tasks
    }
    judges = independent_judges(study, folders, volumes) if any(responses.values()) else []
    rows = []
    for task in tasks:
        name, seed, spec = task.row.name, task.seed, task.spec
        generations = responses[name, seed]
        if not generations:
            continue
        rows.append(
            RowExpression(
                row=name,
                seed=seed,
                settings=settings_sha256(study, name, seed),
                best=_best_of(task),
                judges=read_rows(
                    generations, judges, spec.dataset.labels, spec.dataset.context.past
                ),
                responses=response_figures(generations),
            )
        )
        report(f"{name}, seed {seed}: {len(generations)} generations were read")
    return StudyExpression(rows=rows)


def _best_of(task: RowTask) -> int:
    """Return the number of the generation that a finished row uses."""
    result = task.folder.read()
    if result is None:
        raise StudyError(f"{task.folder.path} is not finished: run the row first")
    return result.best


def response_figures(generations: Sequence[StoredExpression]) -> list[ResponseFigures]:
    """Return what the responses of each generation of a row are like.

    Parameters
    ----------
    generations
        The generations, which responded to the same contexts.
    """
    texts = [one.responses["response"].to_pylist() for one in generations]
    pairs = min(map(count_bigrams, texts))
    return [
        ResponseFigures(
            generation=one.generation,
            diversity=one.score.diversity,
            equal_diversity=rounded(distinct_bigrams_of(said, pairs)) if pairs else None,
            words=one.score.words,
            named=one.score.named,
            well_formed=one.score.well_formed,
        )
        for one, said in zip(generations, texts, strict=True)
    ]


def independent_judges(study: Study, folders: StudyFolders, volumes: DataVolumes) -> list[Judge]:
    """Return the judges that the evolution never sees, both trained on all labels.

    They are the same for all rows and seeds of the study.

    Parameters
    ----------
    study
        The study.
    folders
        The study's folders.
    volumes
        The data volumes.

    Raises
    ------
    StudyError
        If the study has no ceiling row, or it is not finished here.
    """
    row = next((row for row in study.rows if row.kind is Kind.CEILING), None)
    if row is None:
        raise StudyError(f"study {study.name} has no row of kind `ceiling`, which is a judge")
    seeds = study.seeds_of(row)
    finished = [seed for seed in seeds if folders.row(row, seed).read() is not None]
    seed = finished[0] if finished else seeds[0]
    ceiling = RowTask(study, row, seed, folders, volumes)
    base = RowTask(study, base_row(), seed, folders, volumes)
    tfidf = select_tfidf(base, base.training_dialogues)
    return [TfidfJudge(tfidf.model), ModelJudge(selected_model(ceiling), ceiling.spec)]


def read_rows(
    generations: Sequence[StoredExpression],
    judges: Sequence[Judge],
    labels: Sequence[str],
    past: int,
) -> list[JudgePredictions]:
    """Return what each judge reads in the responses of the generations of a row.

    The first one is the baseline's model, whose readings are stored. A judge reads all generations
    at once, and the human turns once.

    Parameters
    ----------
    generations
        What the evaluations stored, at least one.
    judges
        The judges.
    labels
        The label set.
    past
        The largest number of turns before a turn that a judge sees.
    """
    first = generations[0]
    humans = rows_of_humans(first.readings)
    turns = _human_turns(first.dialogues, humans)
    stored = [rows_of_responses(one.readings) for one in generations]
    listed = [_readings(BASELINE_JUDGE, generations, stored, humans, labels)]
    for judge in judges:
        targets = [response_targets(one.responses, one.dialogues, past) for one in generations]
        flat = [target for group in targets for target in group]
        emotions = judge.read([*flat, *human_targets(turns, past)])
        read = []
        for one in generations:
            count = one.responses.num_rows
            read.append(_judged(one.responses["intended"].to_pylist(), emotions[:count], one))
            emotions = emotions[count:]
        of_humans = [
            {"intended": human.turn.labels[0], "as_intended": emotion in human.turn.labels}
            for human, emotion in zip(turns, emotions, strict=True)
        ]
        human_table = pa.Table.from_pylist(of_humans, schema=_HUMANS)
        listed.append(_readings(judge.name, generations, read, human_table, labels))
    return listed


#: The columns that the share of human turns follows from.
_HUMANS = pa.schema([("intended", pa.string()), ("as_intended", pa.bool_())])


def _judged(intended: Sequence[str], read: Sequence[str | None], one: StoredExpression) -> pa.Table:
    return pa.table(
        {
            "dialogue_id": one.responses["dialogue_id"],
            "intended": list(intended),
            "as_intended": [a == b for a, b in zip(intended, read, strict=True)],
        }
    )


def _readings(
    name: str,
    generations: Sequence[StoredExpression],
    tables: Sequence[pa.Table],
    humans: pa.Table,
    labels: Sequence[str],
) -> JudgePredictions:
    human = [share for share in shares_by_label(humans, labels) if share is not None]
    return JudgePredictions(
        judge=name,
        human=round(float(np.mean(human)), 6) if human else None,
        generations=[
            JudgedGeneration(
                generation=one.generation,
                dialogues=[(int(a), int(b)) for a, b in counts_by_dialogue(table)],
                by_emotion=[share or 0.0 for share in shares_by_label(table, labels)],
            )
            for one, table in zip(generations, tables, strict=True)
        ],
    )


def _human_turns(dialogues: Sequence[Dialogue], humans: pa.Table) -> list[HumanTurn]:
    """Return the human turns that the baseline's model read."""
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    keys = zip(humans["dialogue_id"].to_pylist(), humans["utterance"].to_pylist(), strict=True)
    return [HumanTurn(by_id[dialogue], utterance) for dialogue, utterance in keys]


def _is_finished(study: Study, folders: StudyFolders, row: Row, seed: int) -> bool:
    """Return whether an evolution row is finished, with what it follows from now."""
    result = folders.row(row, seed).read()
    return (
        row.kind is Kind.EVOLUTION
        and seed in study.seeds_of(row)
        and result is not None
        and result.settings == row_settings(study, row, seed)
        and not has_stale_result(study, folders, row, result)
    )


def _stored_generations(task: RowTask) -> list[StoredExpression]:
    """Return what the generations of a finished row stored; empty if its responder does not play.

    A row that was restored from a file has no storage, and so no responses.
    """
    result = task.folder.read()
    run = task.folders.run(task.study, task.row, task.seed)
    manifests = (
        run / stage_prefix(generation.generation, Stage.EVALUATE) / MANIFEST
        for generation in (result.generations if result else [])
    )
    stored = [stored_expression(path) for path in manifests if path.is_file()]
    generations = [one for one in stored if one is not None]
    return generations if generations and generations[0].generation == 0 else []
