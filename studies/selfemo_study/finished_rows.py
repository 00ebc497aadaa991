"""The finished rows of a study, and which rows are missing and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfemo_study.measurements import read_counts
from selfemo_study.row_evolution import row_settings
from selfemo_study.row_requirements import is_stale, taken_from_rows
from selfemo_study.row_result import DEV, TEST, RowResult
from selfemo_study.statistics import Confusion, Interval, mean_f1
from selfemo_study.study_config import Row, Study
from selfemo_study.study_folders import StudyFolders


@dataclass(frozen=True)
class FinishedRow:
    """The result and the counts of one finished row and seed."""

    result: RowResult
    confusions: Mapping[tuple[int, str], Confusion]
    """Confusion matrices by generation and split, each of shape (dialogues, labels, labels)."""


@dataclass(frozen=True)
class MissingRow:
    """A row and seed of the study that is not finished."""

    row: str
    seed: int
    why: str


@dataclass(frozen=True)
class StudyRows:
    """All rows of a study, finished or missing."""

    study: Study
    finished: Mapping[str, Mapping[int, FinishedRow]]
    """Finished rows by name and seed."""
    missing: Sequence[MissingRow] = ()

    def finished_seeds(self, row: Row) -> Mapping[int, FinishedRow]:
        """Return the finished seeds of a row."""
        return self.finished.get(row.name, {})


def read_rows(study: Study, folders: StudyFolders) -> StudyRows:
    """Return the rows of a study that are finished, and those that are missing.

    A result that was run with other settings than the study's file has now counts as missing.

    Parameters
    ----------
    study
        The study.
    folders
        The study's folders.

    Raises
    ------
    StudyError
        If a result cannot be read.
    """
    finished: dict[str, dict[int, FinishedRow]] = {}
    missing = []
    for row in study.rows:
        for seed in study.seeds_of(row):
            folder = folders.row(row, seed)
            result = folder.read()
            if result is None:
                begun = " (begun)" if folder.settings.is_file() else ""
                missing.append(MissingRow(row.name, seed, f"not finished{begun}"))
            elif result.settings != row_settings(study, row, seed):
                why = "run with other settings than those of the file"
                missing.append(MissingRow(row.name, seed, why))
            elif has_stale_result(study, folders, row, result):
                why = "a row that it follows from was run again since"
                missing.append(MissingRow(row.name, seed, why))
            else:
                counts = read_counts(folder.counts, len(study.spec["dataset"]["labels"]))
                finished.setdefault(row.name, {})[seed] = FinishedRow(result, counts)
    return StudyRows(study, finished, missing)


def has_stale_result(study: Study, folders: StudyFolders, row: Row, result: RowResult) -> bool:
    """Return whether a row that a finished row follows from was run again since, or is missing.

    Parameters
    ----------
    study
        The study.
    folders
        The study's folders.
    row
        The row.
    result
        Its result.

    Raises
    ------
    StudyError
        If a result cannot be read.
    """
    record = folders.row(row, result.seed).read_record()
    now = taken_from_rows(study, row, lambda other: folders.row(other, result.seed).read())
    return is_stale(study, row, result, record.rows if record else None, now)


def confusions_of_best(finished: Mapping[int, FinishedRow], split: str) -> list[Confusion]:
    """Return the confusion matrices of each seed's best generation, which dev selects.

    Parameters
    ----------
    finished
        The finished seeds of a row.
    split
        Dev or test.
    """
    return [row.confusions[row.result.selected, split] for _, row in sorted(finished.items())]


def confusions_of_baseline(finished: Mapping[int, FinishedRow], split: str) -> list[Confusion]:
    """Return the confusion matrices of each seed's generation 0, where the row has one.

    Parameters
    ----------
    finished
        The finished seeds of a row.
    split
        Dev or test.
    """
    confusions = (row.confusions.get((0, split)) for _, row in sorted(finished.items()))
    return [c for c in confusions if c is not None]


def baseline_and_best(finished: Mapping[int, FinishedRow]) -> list[tuple[Confusion, Confusion]]:
    """Return generation 0 and the best on test for each seed; empty without a generation 0.

    Parameters
    ----------
    finished
        The finished seeds of a row.
    """
    before, after = confusions_of_baseline(finished, TEST), confusions_of_best(finished, TEST)
    return list(zip(before, after, strict=True)) if before else []


def dev_f1_by_generation(finished: Mapping[int, FinishedRow]) -> dict[int, Interval]:
    """Return the mean dev F1 over seeds of each generation that was measured with any seed.

    Parameters
    ----------
    finished
        The finished seeds of a row.
    """
    numbers = sorted(
        {g for row in finished.values() for g, split in row.confusions if split == DEV}
    )
    return {
        g: mean_f1(
            [row.confusions[g, DEV] for row in finished.values() if (g, DEV) in row.confusions]
        )
        for g in numbers
    }
