"""The row kind `evolution`: the product's own run, and test once it is at its end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from selfemo_api.metrics import FlywheelMetric, TrainMetric
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.status import GenerationRecord, Outcome, Phase
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest
from selfemo_study.control_rows import chosen_model
from selfemo_study.paths import alone, model_folder
from selfemo_study.programs import selfemo
from selfemo_study.reuse import reuse, reused
from selfemo_study.row_record import DEV, TEST, Answers, Generation, RowResult
from selfemo_study.row_work import Work
from selfemo_study.study_config import StudyError, document_of, start_of
from selfemo_study.test_scores import stored

#: Ends that are a result. Others are mended by a person, and the same command goes on.
_ENDS = (Phase.SUCCEEDED, Phase.COLLAPSED)


def run_evolution(work: Work) -> RowResult:
    """Run the evolution to its end, and then read test.

    Raises
    ------
    StudyError
        If the run fails, or is stopped.
    """
    zero = start_model(work)
    reuse(work)
    summary = _run(work)
    history = [GenerationRecord.model_validate(entry) for entry in summary["generations"]]
    best = int(summary["best"]["generation"])
    run = run_folder(work)
    answers: Answers = {}
    for entry in history:
        manifest = run / stage_prefix(entry.generation, Stage.EVALUATE) / MANIFEST
        if manifest.is_file():
            found = stored(manifest, work.dev_source.name, work.spec.dataset.labels)
            answers[entry.generation, DEV] = found
    for entry in history:
        if entry.outcome in (Outcome.BASELINE, Outcome.PROMOTED) or entry.generation == best:
            model = zero if entry.generation == 0 else model_folder(run, entry.generation)
            answers[entry.generation, TEST] = work.test(model)
    words, seconds = reused(work.folder.path, run)
    result = work.finish(
        [_generation(run, entry, seconds) for entry in history],
        answers,
        best=best,
        phase=summary["phase"],
        message=f"{summary['reason']}: {summary['message']}{words}",
    )
    if not work.study.keep_models:
        prune(work, run, best)
    return result


def start_model(work: Work) -> Path:
    """Return the model that the row begins with, made where it is not there."""
    if work.row.after is None:
        return work.generation_zero()
    output = (work.places.models / start_of(work.row, work.seed)).absolute()
    with alone(output.with_name(f"{output.name}.lock")):
        if not output.is_dir():
            made = output.with_name(f"{output.name}.making")
            shutil.rmtree(made, ignore_errors=True)
            before = replace(work, row=work.study.row(work.row.after))
            shutil.copytree(chosen_model(before), made)
            made.rename(output)
    return output


def _run(work: Work) -> dict[str, Any]:
    """Run the command and return its summary."""
    folder = work.folder
    document = yaml.safe_dump(document_of(work.study, work.row, work.seed), sort_keys=False)
    file = folder.path / "evolution.yaml"
    file.write_text(document)
    arguments = ["run", file.name, "--state", "state", "--output", "json", *work.data.options]
    code, said = selfemo(arguments, log=folder.log, cwd=folder.path)
    try:
        summary: dict[str, Any] = json.loads(said)
    except ValueError:
        raise StudyError(f"`selfemo run` ended with exit code {code}; see {folder.log}") from None
    if summary["phase"] not in _ENDS:
        raise StudyError(
            f"the evolution is {summary['phase']} ({summary['message']}); mend the cause and give "
            f"the same command again; its log is {folder.log}"
        )
    return summary


def run_folder(work: Work) -> Path:
    """Return the run's folder in its storage. Raises StudyError."""
    run = work.places.run(work.study, work.row, work.seed)
    if not (run / "generations").is_dir():
        raise StudyError(f"{run} holds no run: delete {work.folder.path} to start afresh")
    return run


def _generation(run: Path, entry: GenerationRecord, reused: Mapping[str, float]) -> Generation:
    """Return a generation; a stage that was taken over counts with the seconds it had taken."""
    trained = _metrics(run, entry.generation, Stage.TRAIN)
    kept = _metrics(run, entry.generation, Stage.FLYWHEEL)
    return Generation(
        generation=entry.generation,
        outcome=entry.outcome.value,
        seconds={
            name: reused.get(stage_prefix(entry.generation, Stage(name)), seconds)
            for name, seconds in entry.stage_seconds.items()
        },
        steps=int(trained.get(TrainMetric.STEPS, 0)),
        kept_groups=int(kept[FlywheelMetric.KEPT_GROUPS]) if kept else None,
        examples=int(trained.get(TrainMetric.ROWS, 0)) if trained else None,
    )


def _metrics(run: Path, generation: int, stage: Stage) -> dict[str, float]:
    manifest = run / stage_prefix(generation, stage) / MANIFEST
    if not manifest.is_file():
        return {}  # generation 0, or it collapsed before
    return Manifest.model_validate_json(manifest.read_bytes()).metrics


def prune(work: Work, run: Path, best: int) -> None:
    """Delete the models that nothing reads any more; the manifests stay."""
    for model in run.glob(f"generations/*/{Stage.TRAIN.slug}/model"):
        if model != model_folder(run, best):
            shutil.rmtree(model)
    for scratch in work.folder.path.glob("state/*/*/work"):
        shutil.rmtree(scratch)
