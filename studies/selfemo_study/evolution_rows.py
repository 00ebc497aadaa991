"""The row kind `evolution`: the product's own run, and test once it has ended."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from selfemo_api.metrics import FlywheelMetric, TrainMetric
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.status import GenerationRecord, Outcome, Phase
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, canonical_json
from selfemo_jobs.store.hashing import sha256
from selfemo_study.control_rows import selected_model
from selfemo_study.made_models import make_once
from selfemo_study.measurements import Measurements
from selfemo_study.model_evaluation import evaluation_manifest, read_evaluation
from selfemo_study.row_evolution import (
    evolution_document,
    resumes,
    row_settings,
    start_model_name,
)
from selfemo_study.row_result import DEV, TEST, Generation, RowResult
from selfemo_study.row_task import RowTask
from selfemo_study.stage_reuse import copied_stages, copy_finished_stages
from selfemo_study.study_config import StudyError
from selfemo_study.study_folders import exclusive_lock, model_path
from selfemo_study.subprocesses import run_selfemo

#: Phases that are a result. In any other, the user fixes the cause and runs the command again.
_RESULT_PHASES = (Phase.SUCCEEDED, Phase.COLLAPSED)


def run_evolution(task: RowTask) -> RowResult:
    """Run the evolution to its end, and then read test.

    Parameters
    ----------
    task
        A row of kind `evolution`.

    Raises
    ------
    StudyError
        If the run fails, or is stopped, or the row reads labels that the warm start does not read.
    """
    task.check_labels()
    baseline = starting_model(task)
    copy_finished_stages(task)
    summary = _run(task)
    history = [GenerationRecord.model_validate(entry) for entry in summary["generations"]]
    best = int(summary["best"]["generation"])
    run = _run_folder(task)
    measurements: Measurements = {}
    for entry in history:
        manifest = run / stage_prefix(entry.generation, Stage.EVALUATE) / MANIFEST
        if manifest.is_file():
            measurements[entry.generation, DEV] = read_evaluation(
                manifest, task.dev_source.name, task.spec.dataset.labels
            )
    for entry in history:
        if entry.outcome in (Outcome.BASELINE, Outcome.PROMOTED) or entry.generation == best:
            model = baseline if entry.generation == 0 else model_path(run, entry.generation)
            measurements[entry.generation, TEST] = task.measure_test(model)
    note, seconds = copied_stages(task.folder.path, run)
    result = task.finish(
        [_generation(run, entry, seconds) for entry in history],
        measurements,
        best=best,
        phase=summary["phase"],
        message=f"{summary['reason']}: {summary['message']}{note}",
    )
    if not task.study.keep_models:
        _delete_unused_models(task, run, best)
    return result


def starting_model(task: RowTask) -> Path:
    """Return the model that the row starts from, created where it does not exist.

    Parameters
    ----------
    task
        A row of kind `evolution`.

    Raises
    ------
    StudyError
        If the supervised row that trains the model is not finished here, or a model that is there
        was made from something else.
    """
    if task.row.after is None:
        return task.baseline_model()
    output = (task.folders.models / start_model_name(task.row, task.seed)).absolute()
    supervised = dataclasses.replace(task, row=task.study.row(task.row.after))
    with exclusive_lock(output.with_name(f"{output.name}.lock")):
        make_once(
            output,
            _made_from_row(supervised),
            lambda folder: shutil.copytree(selected_model(supervised), folder),
        )
    return output


def _made_from_row(supervised: RowTask) -> dict[str, Any]:
    """Return what the model of a finished supervised row follows from. Raises StudyError."""
    result = supervised.folder.read()
    if result is None:
        raise StudyError(
            f"row {supervised.row.name}, seed {supervised.seed} has no model here: run "
            f"`--rows {supervised.row.name} --seeds {supervised.seed}` first"
        )
    return {
        "row": supervised.row.name,
        "settings": row_settings(supervised.study, supervised.row, supervised.seed),
        "result": sha256(canonical_json(result.to_json())),
    }


def _run(task: RowTask) -> dict[str, Any]:
    """Run the command and return its summary. Raises StudyError."""
    folder = task.folder
    document = evolution_document(task.study, task.row, task.seed)
    if resumes(task.study, task.row, task.seed):
        document["spec"]["model"] |= _models_before_and_after(task)
    file = folder.path / "evolution.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    arguments = ["run", file.name, "--state", "state", "--output", "json", *task.volumes.options]
    code, output = run_selfemo(arguments, log=folder.log, directory=folder.path)
    try:
        summary: dict[str, Any] = json.loads(output)
    except ValueError:
        raise StudyError(f"`selfemo run` ended with exit code {code}; see {folder.log}") from None
    if "error" in summary:
        raise StudyError(f"`selfemo run` ended with exit code {code}: {summary['error']}")
    if summary["phase"] not in _RESULT_PHASES:
        raise StudyError(
            f"the evolution is {summary['phase']} ({summary['message']}): fix the cause and run "
            f"the same command again; its log is {folder.log}"
        )
    return summary


def _models_before_and_after(task: RowTask) -> dict[str, str]:
    """Return the model before the warm start, and the one that the run starts from.

    The product knows both if the run resumes from a manifest. It is that of generation 0's
    evaluation on dev.
    """
    baseline = starting_model(task)
    task.measure_dev(baseline)
    manifest = evaluation_manifest(baseline, task.spec, task.dev_source, task.folders, task.volumes)
    return {"uri": task.base_uri, "resumeFrom": manifest.as_uri()}


def _run_folder(task: RowTask) -> Path:
    """Return the storage folder of the run. Raises StudyError where it contains no run."""
    run = task.folders.run(task.study, task.row, task.seed)
    if not (run / "generations").is_dir():
        raise StudyError(
            f"{run} does not contain a run: delete {task.folder.path} to run the row from scratch"
        )
    return run


def _generation(
    run: Path, entry: GenerationRecord, copied_seconds: Mapping[str, float]
) -> Generation:
    """Return a generation of the row. A copied stage counts with the seconds that it had taken."""
    train = _metrics(run, entry.generation, Stage.TRAIN)
    flywheel = _metrics(run, entry.generation, Stage.FLYWHEEL)
    return Generation(
        generation=entry.generation,
        outcome=entry.outcome.value,
        seconds={
            name: copied_seconds.get(stage_prefix(entry.generation, Stage(name)), seconds)
            for name, seconds in entry.stage_seconds.items()
        },
        steps=int(train.get(TrainMetric.STEPS, 0)),
        kept_groups=int(flywheel[FlywheelMetric.KEPT_GROUPS]) if flywheel else None,
        examples=int(train.get(TrainMetric.ROWS, 0)) if train else None,
    )


def _metrics(run: Path, generation: int, stage: Stage) -> dict[str, float]:
    """Return the metrics of a stage; empty where it did not run."""
    manifest = run / stage_prefix(generation, stage) / MANIFEST
    if not manifest.is_file():
        return {}  # generation 0, or the generation collapsed before the stage
    return Manifest.model_validate_json(manifest.read_bytes()).metrics


def _delete_unused_models(task: RowTask, run: Path, best: int) -> None:
    """Delete the models that nothing reads any more. The manifests stay."""
    kept = model_path(run, best) if best else None
    for model in run.glob(f"generations/*/{Stage.TRAIN.slug}/model*"):
        if model != kept:
            shutil.rmtree(model)
    for scratch in task.folder.path.glob("state/*/*/work"):
        shutil.rmtree(scratch)
