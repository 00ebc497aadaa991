"""What evaluations stored about expression, and the file with what all judges read in it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_api.results import ExpressionScore
from selfemo_api.spec import StorageSpec
from selfemo_api.text.files import write_atomically
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.evaluation.expression_tables import (
    READINGS,
    RESPONSES,
    readings_path,
    responses_path,
)
from selfemo_jobs.evaluation.prediction_table import dialogues_path
from selfemo_jobs.runtime.manifest import Manifest, canonical_json, read_manifest, read_part
from selfemo_jobs.runtime.tables import decode_table
from selfemo_jobs.store import Store, open_store
from selfemo_jobs.store.hashing import sha256
from selfemo_study.expression_counts import StudyExpression
from selfemo_study.row_evolution import row_settings
from selfemo_study.study_config import Study, StudyError


@dataclass(frozen=True)
class StoredExpression:
    """What the evaluation of one generation stored."""

    generation: int
    score: ExpressionScore
    responses: pa.Table
    readings: pa.Table
    """The readings of the baseline's model."""
    dialogues: Sequence[Dialogue]
    """The dialogues that the contexts and the human turns are from."""


def stored_expression(path: Path) -> StoredExpression | None:
    """Return what an evaluation stored about expression; None if the responder did not play.

    Parameters
    ----------
    path
        The manifest of the Evaluate stage.
    """
    uri = path.absolute().as_uri()
    store = open_store(StorageSpec(uri=uri))
    manifest, _ = read_manifest(store, uri)
    score = manifest.expression
    if score is None:
        return None

    def table(name: str, schema: pa.Schema) -> pa.Table:
        return decode_table(_part(store, uri, manifest, name), uri, schema)

    text = gzip.decompress(_part(store, uri, manifest, dialogues_path(score.source))).decode()
    return StoredExpression(
        generation=manifest.generation,
        score=score,
        responses=table(responses_path(score.source), RESPONSES),
        readings=table(readings_path(score.source), READINGS),
        dialogues=[_dialogue(json.loads(line)) for line in text.split("\n") if line],
    )


def _part(store: Store, uri: str, manifest: Manifest, name: str) -> bytes:
    part = manifest.find_part(name)
    if part is None:
        raise StudyError(f"{uri} has no part {name}: delete the row's folder and run it again")
    return read_part(store, uri, part)


def _dialogue(line: dict[str, Any]) -> Dialogue:
    turns = (Utterance(t["speaker"], t["text"], tuple(t.get("labels", ()))) for t in line["turns"])
    return Dialogue(line["id"], tuple(turns))


def settings_sha256(study: Study, name: str, seed: int) -> str:
    """Return the hash of the settings that a row's result follows from."""
    return sha256(canonical_json(row_settings(study, study.row(name), seed)))


def settings_of_rows(study: Study) -> dict[tuple[str, int], str]:
    """Return the hash of the settings of each row and seed of a study."""
    return {
        (row.name, seed): settings_sha256(study, row.name, seed)
        for row in study.rows
        for seed in study.seeds_of(row)
    }


def expression_file(study: Study, folder: Path) -> Path:
    """Return the path of a study's file of expression in a folder."""
    return folder / f"{study.name}-expression.json"


def write_expression(file: Path, expression: StudyExpression) -> None:
    """Write the readings. Rows of the file that were not read now stay as they are.

    Parameters
    ----------
    file
        The file, which may exist.
    expression
        The rows that were read now.
    """
    rows = {(row.row, row.seed): row for row in read_expression(file).rows}
    rows |= {(row.row, row.seed): row for row in expression.rows}
    whole = StudyExpression(rows=[rows[key] for key in sorted(rows)])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(whole.to_json(), indent=1) + "\n")


def read_expression(file: Path) -> StudyExpression:
    """Return the readings in a file; none if it does not exist. Raises StudyError."""
    try:
        return StudyExpression.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return StudyExpression(rows=[])
    except ValueError as error:
        raise StudyError(f"{file} cannot be read ({error}): delete it") from None
