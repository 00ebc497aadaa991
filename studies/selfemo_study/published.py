"""Finished rows that are kept beside the page: what they came to, without a published label.

With them the page can be written anew, and a study goes on where another machine has left it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from selfemo_study.paths import Places, RowFolder, alone, asked_for
from selfemo_study.study_config import Row, Study


def publish(study: Study, places: Places, folder: Path) -> list[str]:
    """Copy the finished rows to where they are kept; return their names.

    A row that was run with other settings than the file's is left out, and one that is kept from
    other settings is deleted.
    """
    done = []
    for row, seed, name in _each(study):
        found, kept = places.row(row, seed), RowFolder(folder / name)
        if _fits(study, row, seed, found):
            _copy(found, kept)
            done.append(name)
        elif kept.result.is_file() and not _fits(study, row, seed, kept):
            shutil.rmtree(kept.path)
    return done


def restore(study: Study, places: Places, folder: Path) -> list[str]:
    """Take the kept rows for done where there is nothing finished; return their names.

    A kept row whose settings are no longer the file's is not taken.
    """
    taken = []
    for row, seed, name in _each(study):
        found, kept = places.row(row, seed), RowFolder(folder / name)
        if not _fits(study, row, seed, kept):
            continue
        with alone(found.path / "lock"):
            if found.result.is_file():
                continue
            found.begin(asked_for(study, row, seed))
            _copy(kept, found)
        taken.append(name)
    return taken


def _each(study: Study) -> Iterator[tuple[Row, int, str]]:
    for row in study.rows:
        for seed in study.seeds_of(row):
            yield row, seed, f"{row.name}-{seed}"


def _fits(study: Study, row: Row, seed: int, folder: RowFolder) -> bool:
    result = folder.read()
    return result is not None and result.asked == asked_for(study, row, seed)


def _copy(source: RowFolder, target: RowFolder) -> None:
    """The result last: it says that the row is finished."""
    target.path.mkdir(parents=True, exist_ok=True)
    for file, to in ((source.counts, target.counts), (source.result, target.result)):
        shutil.copyfile(file, to)
