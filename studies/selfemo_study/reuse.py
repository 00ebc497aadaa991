"""What a row need not do again, since another row of the same seed has done just that.

Rows that change one thing of the reward have the headline row's first self-play, those that change
one of the training its scores too. A stage's result follows from what its manifest names, and a
stage that finds its manifest answers from it: so the files are copied, and the product goes on.
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
from selfemo_api.stages import STAGE_ORDER, Stage, stage_prefix
from selfemo_api.text.files import write_atomically
from selfemo_jobs.runtime.fingerprint import value_at
from selfemo_jobs.runtime.manifest import MANIFEST
from selfemo_jobs.runtime.program import StageProgram
from selfemo_study.paths import model_folder
from selfemo_study.row_work import Work
from selfemo_study.study_config import Kind

#: Generation 0 is only evaluated; generation 1 episodes with the same model in all rows.
FIRST = ((0, Stage.EVALUATE), *((1, stage) for stage in STAGE_ORDER))
NOTE = "reused.json"


def equal_stages(one: EvolutionSpec, other: EvolutionSpec) -> list[tuple[int, Stage]]:
    """Return the first stages that do the same under both specs; pure.

    A stage whose settings are equal counts only where all before it do.
    """
    if one.seed != other.seed:
        return []
    found = []
    specs = one.to_json(), other.to_json()
    for generation, stage in FIRST:
        mine, theirs = ([value_at(s, path) for path in _relevant(stage)] for s in specs)
        if mine != theirs:
            break
        found.append((generation, stage))
    return found


def reuse(work: Work) -> None:
    """Copy what a finished row has done already to where this row's run will look for it."""
    here = work.places.run(work.study, work.row, work.seed)
    if here.exists():
        return
    for row in work.study.rows:
        if row.kind is not Kind.EVOLUTION or row == work.row or row.after != work.row.after:
            continue
        if work.places.row(row, work.seed).read() is None:
            continue
        there = work.places.run(work.study, row, work.seed)
        stages = _stages_there(there, equal_stages(work.spec, work.spec_of(row)))
        if len(stages) > 1:
            _take(there, here, stages)
            note = {"row": row.name, "stages": stages}
            write_atomically(work.folder.path / NOTE, json.dumps(note, indent=1) + "\n")
            return


def reused(folder: Path, run: Path) -> tuple[str, Mapping[str, float]]:
    """Return words on what a row's run has taken over, and the seconds that each stage had taken.

    The seconds are by the stage's place below the run.
    """
    if not (folder / NOTE).is_file():
        return "", {}
    note = json.loads((folder / NOTE).read_text())
    seconds = {
        prefix: float(json.loads((run / prefix / "run.json").read_text())["seconds"])
        for prefix in note["stages"]
    }
    return f"; from {note['row']}: {', '.join(note['stages'])}", seconds


def _take(source: Path, target: Path, stages: list[str]) -> None:
    """Copy the stages' folders, whole or not at all: a run that is there is never added to."""
    making = target.with_name(target.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    for prefix in stages:
        shutil.copytree(source / prefix, making / prefix)
    making.rename(target)


def _stages_there(run: Path, equal: list[tuple[int, Stage]]) -> list[str]:
    """Return the places below a run of the first stages whose results are there."""
    whole = takewhile(lambda place: _whole(run, *place), equal)
    return [stage_prefix(generation, stage) for generation, stage in whole]


def _whole(run: Path, generation: int, stage: Stage) -> bool:
    """Return whether a stage's result is there; a finished row has deleted most models."""
    there = (run / stage_prefix(generation, stage) / MANIFEST).is_file()
    return there and (stage is not Stage.TRAIN or model_folder(run, generation).is_dir())


@cache
def _relevant(stage: Stage) -> tuple[str, ...]:
    module = import_module(f"selfemo_jobs.stages.{stage.slug}.stage")
    program: StageProgram = module.PROGRAM
    return tuple(program.relevant)
