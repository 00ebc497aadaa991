"""Controls that train without the evolution: more supervised steps, all labels, majority votes."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_api.contract import StageConfig
from selfemo_api.seeds import stage_seed
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.text.files import write_atomically
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.prompts import parse_labels
from selfemo_jobs.runtime.manifest import MANIFEST, read_manifest
from selfemo_jobs.runtime.schemas import CANDIDATES
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.store import open_store
from selfemo_study.data_volumes import load_dialogues
from selfemo_study.measurements import Measurements
from selfemo_study.row_result import BASELINE, CONTROL, DEV, TEST, Generation, RowResult
from selfemo_study.row_task import RowTask
from selfemo_study.stage_reuse import ran_alike
from selfemo_study.study_config import Kind, StudyError
from selfemo_study.study_folders import model_path
from selfemo_study.subprocesses import run_stage

#: An utterance: its source, its dialogue and its index in the dialogue.
UtteranceKey = tuple[str, str, int]


@dataclass(frozen=True)
class TrainingPlan:
    """What a control trains on, and how long."""

    model: Path
    """The model to start from."""
    dialogues: int
    """The number of dialogues, from the first."""
    steps: int
    batch_size: int
    responder_share: float
    source: Path | None = None
    """A JSON Lines file of dialogues. None: the training dialogues."""
    seconds: Mapping[str, float] | None = None
    """Seconds by stage of the work before the training."""
    note: str = ""
    """What the row's message says about the data."""


def run_training_control(task: RowTask) -> RowResult:
    """Train a control with each of its learning rates; dev selects one.

    Parameters
    ----------
    task
        A row of kind `supervised`, `ceiling` or `majority`.

    Raises
    ------
    StudyError
        If a training fails, or the evolution row that the control requires is not finished.
    """
    plan = {
        Kind.SUPERVISED: _plan_supervised,
        Kind.CEILING: _plan_ceiling,
        Kind.MAJORITY: _plan_majority,
    }[task.row.kind](task)
    trained = []
    for rate in task.row.learning_rates:
        output = _model_folder(task, rate)
        training = task.supervised_training(
            plan.model,
            output,
            plan.dialogues,
            plan.steps,
            rate,
            responder_share=plan.responder_share,
            batch_size=plan.batch_size,
            source=plan.source,
        )
        seconds = task.train(training)
        trained.append((task.measure_dev(output), rate, output, seconds))
    dev, rate, model, seconds = max(trained, key=lambda t: t[0].f1)
    baseline = task.baseline_model()
    measurements: Measurements = {
        (0, DEV): task.measure_dev(baseline),
        (1, DEV): dev,
        (0, TEST): task.measure_test(baseline),
        (1, TEST): task.measure_test(model),
    }
    dev_by_rate = ", ".join(f"{r:g}: {d.f1:.4f}" for d, r, _, _ in trained)
    spent = {
        **(plan.seconds or {}),
        Stage.TRAIN.value: seconds,
        Stage.EVALUATE.value: dev.seconds,
    }
    examples = plan.steps * plan.batch_size
    result = task.finish(
        [
            Generation(generation=0, outcome=BASELINE),
            Generation(
                generation=1, outcome=CONTROL, seconds=spent, steps=plan.steps, examples=examples
            ),
        ],
        measurements,
        best=1,
        message=f"learning rate {rate:g} by dev ({dev_by_rate}){plan.note}",
    )
    if not task.study.keep_models:
        for _, _, other, _ in trained:
            if other != model:
                shutil.rmtree(other)
    return result


def selected_model(task: RowTask) -> Path:
    """Return the model that dev selected in a finished control.

    Parameters
    ----------
    task
        The control.

    Raises
    ------
    StudyError
        If the control was not finished here, so that its model does not exist.
    """
    trained = [_model_folder(task, rate) for rate in task.row.learning_rates]
    existing = [model for model in trained if model.is_dir()]
    if task.folder.read() is None or not existing:
        raise StudyError(
            f"row {task.row.name}, seed {task.seed} has no model here: delete {task.folder.path} "
            "and run the row again"
        )
    # only `keepModels` keeps all models; their evaluations on dev are kept too
    if len(existing) == 1:
        return existing[0]
    return max(existing, key=lambda model: task.measure_dev(model).f1)


def best_model(task: RowTask, name: str) -> Path:
    """Return the best model of a finished evolution row of the same seed.

    Parameters
    ----------
    task
        The row that continues with it.
    name
        The name of the evolution row.

    Raises
    ------
    StudyError
        If that row is not finished here, so that its model does not exist.
    """
    row = task.study.row(name)
    result = task.folders.row(row, task.seed).read()
    if result is not None:
        if result.best == 0:
            return task.baseline_model()
        run = task.folders.run(task.study, row, task.seed)
        if (run / stage_prefix(result.best, Stage.TRAIN) / MANIFEST).is_file():
            model = model_path(run, result.best)
            if model.is_dir():
                return model.absolute()
    raise StudyError(
        f"row {task.row.name}: row {name}, seed {task.seed} has no model here: run "
        f"`--rows {name} --seeds {task.seed}` first"
    )


def _model_folder(task: RowTask, rate: float) -> Path:
    return (task.folder.path / "models" / f"rate-{rate:g}").absolute()


def _plan_supervised(task: RowTask) -> TrainingPlan:
    warm_start = task.study.warm_start
    return TrainingPlan(
        model=task.baseline_model() if task.row.after is None else best_model(task, task.row.after),
        dialogues=task.labeled_dialogues,
        steps=task.steps(),
        batch_size=warm_start.batch_size,
        responder_share=warm_start.responder_share,
    )


def _plan_ceiling(task: RowTask) -> TrainingPlan:
    warm_start = task.study.warm_start
    return TrainingPlan(
        model=task.base_model(),
        dialogues=len(task.training_dialogues),
        steps=task.steps(),
        batch_size=warm_start.batch_size,
        responder_share=warm_start.responder_share,
    )


def _plan_majority(task: RowTask) -> TrainingPlan:
    """Run generation 0's self-play on the evolution's dialogues; its votes are the labels."""
    evolution = task.steps_row_result()
    tables, seconds = [], 0.0
    for generation in range(1, len(evolution.generations)):
        table, spent = _candidates_of_baseline(task, generation)
        tables.append(table)
        seconds += spent
    spec = task.steps_row_spec
    votes = majority_votes(pa.concat_tables(tables), spec.dataset.labels)
    file = task.folder.path / "votes.jsonl"
    count = _write_votes(task, votes, file)
    return TrainingPlan(
        model=task.baseline_model(),
        dialogues=count,
        steps=task.steps(),
        batch_size=utterances_per_step(spec),
        responder_share=0.0,
        source=file.absolute(),
        seconds={Stage.SELF_PLAY.value: seconds},
        note=f"; {len(votes)} utterances with a vote",
    )


def utterances_per_step(spec: EvolutionSpec) -> int:
    """Return the number of groups in a training step of the evolution. Pure.

    Each group belongs to one utterance. It contains its candidates, and the answer where answers
    are imitated.

    Parameters
    ----------
    spec
        The evolution's spec.
    """
    group = spec.self_play.group_size + (1 if spec.training.imitation > 0.0 else 0)
    return max(1, spec.training.batch_size // group)


def _candidates_of_baseline(task: RowTask, generation: int) -> tuple[pa.Table, float]:
    """Return generation 0's candidates on the evolution's targets, and the seconds they took.

    The stage has the evolution's seed, so dialogues and targets are the same.
    """
    folder = task.folder.path.absolute()
    spec = task.steps_row_spec
    self_play = spec.self_play.model_copy(update={"roles": [Role.RECOGNIZER]})
    storage = spec.storage.model_copy(update={"uri": (folder / "store").as_uri()})
    spec = spec.model_copy(update={"self_play": self_play, "storage": storage})
    stored = stored_self_play(task, generation)
    output = stored or folder / "store" / "votes" / stage_prefix(generation, Stage.SELF_PLAY)
    if not (output / MANIFEST).is_file():
        model = task.baseline_model().as_uri()
        config = StageConfig(
            stage=Stage.SELF_PLAY,
            run=f"study/{task.row.name}",
            generation=generation,
            seed=stage_seed(spec.seed, generation, Stage.SELF_PLAY),
            spec=spec,
            policy_uri=model,
            judge_uri=model,
            output=output.as_uri(),
        )
        run_stage(config, folder / "selfplay", task.volumes)
    store = open_store(spec.storage)
    manifest, _ = read_manifest(store, (output / MANIFEST).as_uri())
    tables = read_tables(store, (output / MANIFEST).as_uri(), manifest, CANDIDATES)
    seconds = json.loads((output / "run.json").read_text())["seconds"]
    return pa.concat_tables(tables), float(seconds)


def stored_self_play(task: RowTask, generation: int) -> Path | None:
    """Return the evolution's own self-play where generation 0 played it, or None.

    The evolution's first self-play is by generation 0. It serves where it contains only the
    recognizer, and the evolution ran with the present code on the present dialogues.

    Parameters
    ----------
    task
        The control.
    generation
        The number of the evolution's generation.
    """
    if generation != 1 or task.steps_row_spec.self_play.roles != [Role.RECOGNIZER]:
        return None
    row = task.study.row(task.study.steps_row(task.row))
    if not ran_alike(task, row):
        return None
    run = task.folders.run(task.study, row, task.seed)
    folder = (run / stage_prefix(generation, Stage.SELF_PLAY)).absolute()
    return folder if (folder / MANIFEST).is_file() else None


def majority_votes(table: pa.Table, labels: Sequence[str]) -> dict[UtteranceKey, str]:
    """Return the label that most candidates name first, for each utterance. Pure.

    A tie goes to the label that comes first in the label set. An utterance for which no candidate
    names a label has no vote.

    Parameters
    ----------
    table
        Candidates with the columns ``source``, ``dialogue_id``, ``utterance`` and ``completion``.
    labels
        The labels of the data set.
    """
    votes: defaultdict[UtteranceKey, Counter[str]] = defaultdict(Counter)
    columns = ("source", "dialogue_id", "utterance", "completion")
    for source, dialogue, utterance, text in zip(
        *(table[name].to_pylist() for name in columns), strict=True
    ):
        first = parse_labels(text, labels).first
        if first is not None:
            votes[source, dialogue, utterance][first] += 1
    return {key: max(labels, key=lambda label: count[label]) for key, count in votes.items()}


def _write_votes(task: RowTask, votes: Mapping[UtteranceKey, str], file: Path) -> int:
    """Write the dialogues with the votes as their only labels; return how many there are.

    A source whose labels the evolution may read keeps them.
    """
    lines: list[str] = []
    spec = task.steps_row_spec
    for source in spec.dataset.self_play:
        dialogues = load_dialogues(
            spec.dataset, source, task.volumes, read_labels=source.use_labels
        )
        labels = gold_labels(source.name, dialogues) if source.use_labels else votes
        lines += labeled_lines(source.name, dialogues, labels)
    if not lines:
        raise StudyError("no utterance has a vote: generation 0 names no label")
    write_atomically(file, "".join(lines))
    return len(lines)


def gold_labels(source: str, dialogues: Iterable[Dialogue]) -> dict[UtteranceKey, str]:
    """Return the first label of each labeled utterance. Pure.

    Parameters
    ----------
    source
        The name of the source.
    dialogues
        Its dialogues.
    """
    return {
        (source, dialogue.id, index): turn.labels[0]
        for dialogue in dialogues
        for index, turn in enumerate(dialogue.turns)
        if turn.labels
    }


def labeled_lines(
    source: str, dialogues: Iterable[Dialogue], labels: Mapping[UtteranceKey, str]
) -> list[str]:
    """Return the dialogues that have at least one label, as JSON lines. Pure.

    Parameters
    ----------
    source
        The name of the source.
    dialogues
        Its dialogues. Their own labels are not used.
    labels
        The labels to write, by utterance.
    """
    lines = []
    for dialogue in dialogues:
        turns: list[dict[str, Any]] = []
        for index, turn in enumerate(dialogue.turns):
            label = labels.get((source, dialogue.id, index))
            label_field = {"labels": [label]} if label else {}
            turns.append({"speaker": turn.speaker, "text": turn.text, **label_field})
        if any("labels" in turn for turn in turns):
            # ids are unique within a source only
            line = {"id": f"{source}/{dialogue.id}", "turns": turns}
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return lines
