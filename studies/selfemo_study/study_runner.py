"""Runs what is missing of a study, row by row and seed by seed; what is finished is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from selfemo_jobs.errors import StageError
from selfemo_study.baselines import run_words
from selfemo_study.control_rows import run_supervised
from selfemo_study.evolution_rows import run_evolution
from selfemo_study.on_policy_rows import run_on_policy
from selfemo_study.paths import Places, alone, asked_for
from selfemo_study.programs import Data
from selfemo_study.row_record import RowResult
from selfemo_study.row_work import Work
from selfemo_study.study_config import Kind, Study, StudyError, needed, problems

#: How each kind of row is done.
PROGRAMS: dict[Kind, Callable[[Work], RowResult]] = {
    Kind.EVOLUTION: run_evolution,
    Kind.SUPERVISED: run_supervised,
    Kind.CEILING: run_supervised,
    Kind.MAJORITY: run_supervised,
    Kind.ON_POLICY: run_on_policy,
    Kind.TFIDF: run_words,
    Kind.CONSTANT: run_words,
}

Say = Callable[[str], None]


def run(
    study: Study, rows: Sequence[str], seeds: Sequence[int], places: Places, data: Data, say: Say
) -> int:
    """Run what is missing and return how many rows failed; one that fails stops no other.

    The rows of one seed come before the next seed's, so that there is something to compare early.

    Raises
    ------
    StudyError
        Before anything is run: a row that the API server would refuse.
    """
    wanted = needed(study, list(rows))
    wrong = [problem for row in wanted for problem in problems(study, row)]
    if wrong:
        raise StudyError("\n".join([*wrong, "mend these rows, or leave them out with --rows"]))
    failed = 0
    for seed in seeds:
        for row in (r for r in wanted if seed in study.seeds_of(r)):
            failed += not _one(Work(study, row, seed, places, data), say)
    return failed


def _one(work: Work, say: Say) -> bool:
    """Do one row and seed; return whether it is finished."""
    name = f"{work.row.name}, seed {work.seed}"
    began = time.monotonic()
    try:
        with alone(work.folder.path / "lock"):
            work.folder.begin(asked_for(work.study, work.row, work.seed))
            found = work.folder.read()
            if found is None:
                say(f"{name}: begins")
                found = PROGRAMS[work.row.kind](work)
    except (StudyError, StageError) as error:
        say(f"{name}: FAILED: {error}")
        return False
    say(f"{name}: {_words(found)} ({time.monotonic() - began:.0f} s)")
    return True


def _words(found: RowResult) -> str:
    best = found.generation(found.best)
    zero = next((g for g in found.generations if g.generation == 0), None)
    before = f"{zero.test:.4f} -> " if zero and zero.test is not None else ""
    return f"{found.phase}, test {before}{best.test:.4f} (dev {best.dev:.4f})"


def row_names(study: Study, asked: str | None) -> list[str]:
    """Return the rows to run. Raises StudyError."""
    if asked is None:
        return [row.name for row in study.rows]
    return [study.row(name.strip()).name for name in asked.split(",")]


def seeds_of(study: Study, asked: str | None) -> list[int]:
    """Return the seeds to run. Raises StudyError."""
    if asked is None:
        return list(study.seeds)
    try:
        found = [int(text) for text in asked.split(",")]
    except ValueError:
        raise StudyError(f"--seeds {asked}: must be whole numbers with commas") from None
    unknown = sorted(set(found) - set(study.seeds))
    if unknown:
        raise StudyError(f"--seeds {asked}: the study has {study.seeds}; add others to its file")
    return found
