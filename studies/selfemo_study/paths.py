"""Where a study keeps what: one folder for each row and seed, and what rows share."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.text.files import write_atomically
from selfemo_operator.cli.run_options import local_uid
from selfemo_study.row_record import RowResult
from selfemo_study.study_config import STORE, Row, Study, StudyError, evolution_of

ROOT = Path("build/studies")
#: Base models are shared with the other examples.
BASES = Path("build/models")


@dataclass(frozen=True)
class Places:
    """The folders of a study."""

    root: Path
    bases: Path = BASES

    @property
    def models(self) -> Path:
        """Generation 0 of each seed."""
        return self.root / "_shared" / "models"

    @property
    def measures(self) -> Path:
        """Evaluations, by what they follow from."""
        return self.root / "_shared" / "measures"

    def row(self, row: Row, seed: int) -> RowFolder:
        """Return the folder of a row and seed."""
        return RowFolder(self.root / row.name / f"seed-{seed}")

    def run(self, study: Study, row: Row, seed: int) -> Path:
        """Return where the run of an evolution keeps its data."""
        evolution = evolution_of(study, row, seed)
        named = evolution.metadata.model_copy(update={"uid": local_uid(evolution)})
        run = evolution.model_copy(update={"metadata": named}).run
        return self.row(row, seed).path / STORE.removeprefix("file://") / run


@dataclass(frozen=True)
class RowFolder:
    """The files of one row and seed."""

    path: Path

    @property
    def asked(self) -> Path:
        """What was asked for when it began."""
        return self.path / "asked.json"

    @property
    def result(self) -> Path:
        """What it came to; written last."""
        return self.path / "result.json"

    @property
    def predictions(self) -> Path:
        """Every answer on dev and test, by generation."""
        return self.path / "predictions.parquet"

    @property
    def counts(self) -> Path:
        """The answers' counts, by generation and dialogue."""
        return self.path / "counts.parquet"

    @property
    def log(self) -> Path:
        """What its programs said."""
        return self.path / "log.txt"

    def read(self) -> RowResult | None:
        """Return the result, or None where the row is not finished. Raises StudyError."""
        try:
            return RowResult.model_validate_json(self.result.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise StudyError(f"{self.result} cannot be read ({error}): delete it") from None

    def write(self, result: RowResult) -> None:
        """Write the result; the row is then finished."""
        write_whole(self.result, result.to_json())

    def begin(self, asked: dict[str, Any]) -> None:
        """Note what is asked for. Raises StudyError where something else was begun here."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self.asked.is_file():
            begun = json.loads(self.asked.read_text())
            differing = [k for k in sorted({*begun, *asked}) if begun.get(k) != asked.get(k)]
            if differing:
                raise StudyError(
                    f"{self.path} was begun with other settings ({', '.join(differing)}): delete "
                    "the folder to start afresh, or give the row another name"
                )
        else:
            write_whole(self.asked, asked)


def asked_for(study: Study, row: Row, seed: int) -> dict[str, Any]:
    """Return all that a row's result follows from."""
    follows: dict[str, Any] = {
        "seed": seed,
        "base": study.base.to_json(),
        "warmStart": study.warm_start.to_json(),
        "test": [source.to_json() for source in study.test],
        "spec": study.spec,
        "row": _told(row),
    }
    model = study.model_of(row)
    if model != row.name:
        follows["like"] = study.row(model).to_json()["set"]
    if row.after is not None:
        follows["after"] = _told(study.row(row.after))
    return follows


def _told(row: Row) -> dict[str, Any]:
    """Return what a row's result follows from, of the row itself."""
    return {k: v for k, v in row.to_json().items() if k not in ("why", "name", "seeds")}


def model_folder(run: Path, generation: int) -> Path:
    """Return the model that a generation has made."""
    return run / stage_prefix(generation, Stage.TRAIN) / "model"


def write_whole(path: Path, value: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file: two harnesses never work on the same thing at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
