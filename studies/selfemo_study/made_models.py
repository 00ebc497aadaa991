"""Models that the harness makes, each with a record beside it of what it was made from."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfemo_api.api_model import ApiModel, JsonObject
from selfemo_jobs.runtime.fingerprint import differing_settings
from selfemo_study.row_code import code_sha256
from selfemo_study.study_config import StudyError
from selfemo_study.study_folders import write_json


class ModelRecord(ApiModel):
    """What a model was made from."""

    made_from: JsonObject
    """All settings that the model follows from, and the hashes of the files that were read."""
    code: str
    """The SHA-256 of the code that made it. It is not compared: the rows of a study that run after
    an update begin with the same generation 0 as those before it."""
    seconds: float
    """Seconds that the making took."""


def make_once(
    output: Path, made_from: dict[str, Any], make: Callable[[Path], object]
) -> ModelRecord:
    """Make a model where it does not exist; return its record.

    Parameters
    ----------
    output
        The model's folder. The record is ``<folder>.json`` beside it.
    made_from
        All that the model follows from, as a JSON object.
    make
        Makes the model in the folder that it is given.

    Raises
    ------
    StudyError
        If the existing model was made from something else, or has no record.
    """
    file = output.with_name(f"{output.name}.json")
    if output.is_dir():
        return _checked_record(output, file, made_from)
    incomplete = output.with_name(f"{output.name}.making")
    shutil.rmtree(incomplete, ignore_errors=True)
    began = time.monotonic()
    make(incomplete)
    seconds = round(time.monotonic() - began, 3)
    record = ModelRecord(made_from=made_from, code=code_sha256(), seconds=seconds)
    write_json(file, record.to_json())  # before the rename: no model is ever without its record
    incomplete.rename(output)
    return record


def _checked_record(output: Path, file: Path, made_from: dict[str, Any]) -> ModelRecord:
    """Return the record of an existing model. Raises StudyError where it does not fit."""
    advice = "delete the folder, and the same command makes the model again"
    try:
        record = ModelRecord.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        raise StudyError(f"{output} has no record of what it was made from: {advice}") from None
    if record.made_from != made_from:
        names = ", ".join(differing_settings(record.made_from, made_from))
        raise StudyError(f"{output} was made with other settings ({names}): {advice}")
    return record
