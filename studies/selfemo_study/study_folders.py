"""The folders of a study: one for each row and seed, and those that rows share."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfemo_api.api_model import ApiModel, JsonObject
from selfemo_api.local_runs import local_uid
from selfemo_api.stages import Stage, stage_prefix
from selfemo_api.text.files import write_atomically
from selfemo_study.row_evolution import STORAGE_URI, evolution_of
from selfemo_study.row_result import RowResult
from selfemo_study.study_config import Row, Study, StudyError

#: The default folder of all studies.
ROOT = Path("build/studies")
#: Base models are shared with the examples.
BASE_MODELS = Path("build/models")


@dataclass(frozen=True)
class StudyFolders:
    """The folders of one study."""

    root: Path
    """The study's own folder."""
    base_models: Path = BASE_MODELS
    """The folder of the models before their warm start."""

    @property
    def models(self) -> Path:
        """The models that rows share, such as generation 0 of each seed."""
        return self.root / "_shared" / "models"

    @property
    def evaluations(self) -> Path:
        """Evaluations, each in a folder named by the hash of what it follows from."""
        return self.root / "_shared" / "measures"

    def row(self, row: Row, seed: int) -> RowFolder:
        """Return the folder of a row and seed."""
        return RowFolder(self.root / row.name / f"seed-{seed}")

    def run(self, study: Study, row: Row, seed: int) -> Path:
        """Return the storage folder of an evolution's run. Raises StudyError."""
        evolution = evolution_of(study, row, seed)
        uid = local_uid(evolution.metadata.namespace, evolution.metadata.name)
        metadata = evolution.metadata.model_copy(update={"uid": uid})
        run = evolution.model_copy(update={"metadata": metadata}).run
        return self.row(row, seed).path / STORAGE_URI.removeprefix("file://") / run


class RowRecord(ApiModel):
    """What a row follows from beside its settings."""

    rows: JsonObject
    """What it takes from the results of other rows, by their names."""
    sources: dict[str, str] | None = None
    """The SHA-256 of the content of each source, by its URI. None: the row ran elsewhere."""


@dataclass(frozen=True)
class RowFolder:
    """The files of one row and seed."""

    path: Path

    @property
    def settings(self) -> Path:
        """The settings with which the row began."""
        return self.path / "asked.json"

    @property
    def record(self) -> Path:
        """What the row follows from beside its settings."""
        return self.path / "follows.json"

    @property
    def result(self) -> Path:
        """The row's result, written last."""
        return self.path / "result.json"

    @property
    def predictions(self) -> Path:
        """Every answer on dev and test, by generation."""
        return self.path / "predictions.parquet"

    @property
    def counts(self) -> Path:
        """The counts of the answers, by generation and dialogue."""
        return self.path / "counts.parquet"

    @property
    def log(self) -> Path:
        """The standard error of the row's programs."""
        return self.path / "log.txt"

    def read(self) -> RowResult | None:
        """Return the result, or None where the row is not finished. Raises StudyError."""
        try:
            return RowResult.model_validate_json(self.result.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise StudyError(f"{self.result} cannot be read ({error}): delete it") from None

    def read_record(self) -> RowRecord | None:
        """Return what the row follows from, or None where that was not noted. Raises StudyError."""
        try:
            return RowRecord.model_validate_json(self.record.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise StudyError(
                f"{self.record} cannot be read ({error}): delete {self.path}"
            ) from None

    def write_record(self, record: RowRecord) -> None:
        """Write what the row follows from."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.record, record.to_json())

    def write(self, result: RowResult) -> None:
        """Write the result; the row is then finished."""
        write_json(self.result, result.to_json())

    def begin(self, settings: dict[str, Any]) -> None:
        """Write the settings. Raises StudyError where the row began here with other settings.

        Parameters
        ----------
        settings
            All settings that the row's result follows from.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self.settings.is_file():
            before = json.loads(self.settings.read_text())
            names = sorted({*before, *settings})
            differing = [name for name in names if before.get(name) != settings.get(name)]
            if differing:
                raise StudyError(
                    f"{self.path} was begun with other settings ({', '.join(differing)}): delete "
                    "the folder to run the row from scratch, or give the row another name"
                )
        else:
            write_json(self.settings, settings)


def model_path(run: Path, generation: int) -> Path:
    """Return the folder of the model that a generation trained, as the stage's manifest names it.

    Parameters
    ----------
    run
        The storage folder of the run.
    generation
        The number of the generation, from 1.
    """
    folder = run / stage_prefix(generation, Stage.TRAIN)
    return folder / str(json.loads((folder / "manifest.json").read_text())["model"])


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a lock file: only one harness at a time works on the same row or model.

    Parameters
    ----------
    path
        The lock file. It and its folder are created where they do not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
