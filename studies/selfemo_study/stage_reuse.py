"""Stages that a row need not run, because another row of the same seed has run exactly the same.

A row that changes only the reward has the same first self-play as the headline row. A row that
changes only the training has the same scores too. The files of these stages are copied. The
product finds their manifests and continues with the next stage.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from itertools import takewhile
from pathlib import Path

from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage, stage_prefix, stages_of
from selfemo_api.text.files import write_atomically
from selfemo_jobs.runtime.fingerprint import relevant_settings
from selfemo_jobs.runtime.manifest import MANIFEST
from selfemo_jobs.runtime.program import StageProgram
from selfemo_study.row_code import code_sha256, noted_code
from selfemo_study.row_evolution import resumes
from selfemo_study.row_task import RowTask
from selfemo_study.source_contents import source_hashes
from selfemo_study.study_config import Kind, Row
from selfemo_study.study_folders import model_path

#: The stages that can be reused. Check and Publish take seconds, and always run; generation 1
#: starts from the same model in all rows.
FIRST_STAGES = (
    (0, Stage.EVALUATE),
    *((1, stage) for stage in stages_of(1) if stage is not Stage.PUBLISH),
)
NOTE = "reused.json"


def equal_first_stages(one: EvolutionSpec, other: EvolutionSpec) -> list[tuple[int, Stage]]:
    """Return the first stages that have the same result under both specs. Pure.

    A stage with equal settings counts only where all stages before it count.

    Parameters
    ----------
    one
        The spec of a row.
    other
        The spec of another row.
    """
    if one.seed != other.seed:
        return []
    equal: list[tuple[int, Stage]] = []
    for generation, stage in FIRST_STAGES:
        first, second = (relevant_settings(spec, _relevant(stage)) for spec in (one, other))
        if first != second:
            break
        equal.append((generation, stage))
    return equal


def copy_finished_stages(task: RowTask) -> None:
    """Copy the equal first stages of a finished row to where the row's run will look for them.

    Nothing is copied where the row's run has already begun, and nothing from a row that ran with
    other code or read other dialogues.

    Parameters
    ----------
    task
        The row that is about to run.
    """
    target = task.folders.run(task.study, task.row, task.seed)
    if target.exists():
        return
    resumed = resumes(task.study, task.row, task.seed)
    for row in task.study.rows:
        if row.kind is not Kind.EVOLUTION or row == task.row or row.after != task.row.after:
            continue
        if task.folders.row(row, task.seed).read() is None or not ran_alike(task, row):
            continue
        if resumes(task.study, row, task.seed) != resumed:
            continue
        source = task.folders.run(task.study, row, task.seed)
        equal = equal_first_stages(task.spec, task.spec_of(row))
        prefixes = _finished_prefixes(source, equal)
        if len(prefixes) > 1:
            _copy(source, target, prefixes)
            note = {"row": row.name, "stages": prefixes}
            write_atomically(task.folder.path / NOTE, json.dumps(note, indent=1) + "\n")
            return


def ran_alike(task: RowTask, row: Row) -> bool:
    """Return whether another row ran with the present code, and its sources are unchanged since.

    Parameters
    ----------
    task
        A row with the same seed.
    row
        The row that may have run.
    """
    folder = task.folders.row(row, task.seed)
    if noted_code(folder.path) != {code_sha256()}:
        return False
    record = folder.read_record()
    if record is None or record.sources is None:
        return False  # an earlier harness did not note them
    return record.sources == source_hashes(record.sources, task.volumes)


def copied_stages(folder: Path, run: Path) -> tuple[str, Mapping[str, float]]:
    """Return a note on the stages that a run copied, and the seconds that each had taken.

    The seconds are by the path of the stage below the run. Both are empty where nothing was copied.

    Parameters
    ----------
    folder
        The folder of the row and seed.
    run
        The storage folder of its run.
    """
    if not (folder / NOTE).is_file():
        return "", {}
    note = json.loads((folder / NOTE).read_text())
    seconds = {
        prefix: float(json.loads((run / prefix / "run.json").read_text())["seconds"])
        for prefix in note["stages"]
    }
    return f"; from {note['row']}: {', '.join(note['stages'])}", seconds


def _copy(source: Path, target: Path, prefixes: list[str]) -> None:
    """Copy the folders of stages, all or none: a run that exists is never added to."""
    incomplete = target.with_name(target.name + ".making")
    shutil.rmtree(incomplete, ignore_errors=True)
    for prefix in prefixes:
        shutil.copytree(source / prefix, incomplete / prefix)
    incomplete.rename(target)


def _finished_prefixes(run: Path, stages: list[tuple[int, Stage]]) -> list[str]:
    """Return the paths below a run of the stages up to the first one without a result."""
    finished = takewhile(lambda stage: _is_complete(run, *stage), stages)
    return [stage_prefix(generation, stage) for generation, stage in finished]


def _is_complete(run: Path, generation: int, stage: Stage) -> bool:
    """Return whether a stage's result exists. A finished row has deleted most of its models."""
    finished = (run / stage_prefix(generation, stage) / MANIFEST).is_file()
    return finished and (stage is not Stage.TRAIN or model_path(run, generation).is_dir())


@cache
def _relevant(stage: Stage) -> tuple[str, ...]:
    """Return the paths of the settings that a stage's result follows from."""
    module = import_module(f"selfemo_jobs.stages.{stage.slug}.stage")
    program: StageProgram = module.PROGRAM
    return tuple(program.relevant)
