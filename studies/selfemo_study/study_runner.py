"""Runs the missing rows of a study, row by row and seed by seed; finished rows stay.

A finished row is refused where its settings, its sources or the rows that it follows from are not
what they were. One that ran with other code stays, and is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from selfemo_jobs.errors import StageError
from selfemo_study.baselines import run_simple_baseline
from selfemo_study.control_rows import run_training_control
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.evolution_rows import run_evolution
from selfemo_study.row_code import code_sha256, note_code, noted_code
from selfemo_study.row_evolution import row_settings, validation_problems
from selfemo_study.row_record import begin_row
from selfemo_study.row_result import RowResult
from selfemo_study.row_task import RowTask
from selfemo_study.study_config import Kind, Study, StudyError, with_required_rows
from selfemo_study.study_folders import StudyFolders, exclusive_lock
from selfemo_study.worker_rows import run_worker_row

#: The function that runs a row of each kind.
RUNNERS: dict[Kind, Callable[[RowTask], RowResult]] = {
    Kind.EVOLUTION: run_evolution,
    Kind.SUPERVISED: run_training_control,
    Kind.CEILING: run_training_control,
    Kind.MAJORITY: run_training_control,
    Kind.ON_POLICY: run_worker_row,
    Kind.ADAMATCH: run_worker_row,
    Kind.TFIDF: run_simple_baseline,
    Kind.CONSTANT: run_simple_baseline,
}

Print = Callable[[str], None]
"""Prints one line about the progress."""


def run(
    study: Study,
    names: Sequence[str],
    seeds: Sequence[int],
    folders: StudyFolders,
    volumes: DataVolumes,
    print_line: Print,
) -> int:
    """Run what is missing and return how many rows failed; a failed row does not stop the others.

    All rows of one seed run before those of the next seed, so that there are rows to compare early.

    Parameters
    ----------
    study
        The study.
    names
        The names of the rows to run. The rows that they require run too.
    seeds
        The seeds to run.
    folders
        The study's folders.
    volumes
        The data volumes.
    print_line
        Called with each line about the progress.

    Raises
    ------
    StudyError
        Before anything runs, if the API server would refuse a row.
    """
    rows = with_required_rows(study, list(names))
    problems = [problem for row in rows for problem in validation_problems(study, row)]
    if problems:
        raise StudyError("\n".join([*problems, "fix these rows, or leave them out with --rows"]))
    failed = 0
    for seed in seeds:
        for row in (r for r in rows if seed in study.seeds_of(r)):
            failed += not _run_row(RowTask(study, row, seed, folders, volumes), print_line)
    return failed


def _run_row(task: RowTask, print_line: Print) -> bool:
    """Run one row and seed; return whether it is finished."""
    name = f"{task.row.name}, seed {task.seed}"
    began = time.monotonic()
    try:
        with exclusive_lock(task.folder.path / "lock"):
            task.folder.begin(row_settings(task.study, task.row, task.seed))
            result = task.folder.read()
            begin_row(task, result)
            if result is None:
                print_line(f"{name}: begins")
                note_code(task.folder.path)
                result = RUNNERS[task.row.kind](task)
    except (StudyError, StageError) as error:
        print_line(f"{name}: FAILED: {error}")
        return False
    # the figures stay: the user decides whether what was changed concerns them
    earlier = "; ran with other code" if noted_code(task.folder.path) - {code_sha256()} else ""
    print_line(f"{name}: {_scores(result)} ({time.monotonic() - began:.0f} s){earlier}")
    return True


def _scores(result: RowResult) -> str:
    """Return the end of a row and its F1 in a few words."""
    best = result.generation(result.selected)
    baseline = next((g for g in result.generations if g.generation == 0), None)
    before = f"{baseline.test:.4f} -> " if baseline and baseline.test is not None else ""
    return f"{result.phase}, test {before}{best.test:.4f} (dev {best.dev:.4f})"


def select_rows(study: Study, names: str | None) -> list[str]:
    """Return the names of the rows to run.

    Parameters
    ----------
    study
        The study.
    names
        Names of rows, separated by commas. None: all rows.

    Raises
    ------
    StudyError
        If the study has no row of that name.
    """
    if names is None:
        return [row.name for row in study.rows]
    return [study.row(name.strip()).name for name in names.split(",")]


def select_seeds(study: Study, numbers: str | None) -> list[int]:
    """Return the seeds to run.

    Parameters
    ----------
    study
        The study.
    numbers
        Seeds, separated by commas. None: all seeds.

    Raises
    ------
    StudyError
        If a seed is not a whole number, or the study does not have it.
    """
    if numbers is None:
        return list(study.seeds)
    try:
        seeds = [int(text) for text in numbers.split(",")]
    except ValueError:
        raise StudyError(f"--seeds {numbers}: must be whole numbers, separated by commas") from None
    if set(seeds) - set(study.seeds):
        raise StudyError(
            f"--seeds {numbers}: the study's seeds are {study.seeds}; add others to its file"
        )
    return seeds
