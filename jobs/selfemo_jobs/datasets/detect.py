"""Decides the format of a file by its content, and explains files that have another format."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Set
from typing import Any

from selfemo_api.spec import DataFormat
from selfemo_jobs.datasets import emorynlp, meld
from selfemo_jobs.datasets.arrow_files import ARROW, PARQUET
from selfemo_jobs.datasets.csv_files import heading_of, separator_of
from selfemo_jobs.datasets.text_files import SourceFile, decode_text
from selfemo_jobs.errors import BadInput

_JSON_ENDINGS = {".json", ".jsonl", ".ndjson"}
_CSV_ENDINGS = {".csv", ".tsv", ".tab"}
_FORMATS = ", ".join(kind.value for kind in DataFormat)


def detect_format(file: SourceFile, columns: Mapping[str, str]) -> DataFormat:
    """Return the format of a file, by its first bytes, its content and the ending of its name.

    Parameters
    ----------
    file
        The file.
    columns
        The columns that ``dataset.columns`` names. A table that has them all is of the format
        ``CSV``, whatever its other columns are.

    Raises
    ------
    BadInput
        If the file is empty or damaged, or its format cannot be decided.
    """
    data = file.read_bytes()
    if data.startswith((PARQUET, *ARROW)):
        return DataFormat.PARQUET if data.startswith(PARQUET) else DataFormat.HUGGING_FACE
    decoded = decode_text(data, file.uri, fix_typography=True).text
    text = decoded.lstrip()
    if file.ending not in _CSV_ENDINGS and text[0] in "{[":
        return _json_format(text)
    if file.ending in _JSON_ENDINGS:
        return DataFormat.JSONL  # whose reader names the line that is not JSON
    if text[0] in "{[" and _decode(text) is not None:
        raise BadInput(explain_json(text, file))
    first_line = text.replace("\r", "\n").partition("\n")[0]
    lines = io.StringIO(decoded, newline="")
    separator = separator_of(lines, file.ending, chosen=columns.values())
    if file.ending not in _CSV_ENDINGS and separator not in first_line:
        raise BadInput(
            f"{file.uri}: the format cannot be inferred from its name or content: set `format` "
            f"({_FORMATS}), or convert it to JSON Lines"
        )
    return _table_format(set(heading_of(text, separator, file.uri)), columns)


def _table_format(names: Set[str], columns: Mapping[str, str]) -> DataFormat:
    """Return the format of a table with some columns."""
    if columns and names >= set(columns.values()):
        return DataFormat.CSV
    for kind, needed in (
        (DataFormat.EMORYNLP, emorynlp.COLUMNS),
        (DataFormat.MELD, meld.COLUMNS),
    ):
        if names >= set(needed):
            return kind
    return DataFormat.CSV


def explain_json(text: str, file: SourceFile) -> str:
    """Return a message for a JSON file where a table is expected.

    Parameters
    ----------
    text
        The text of the file.
    file
        The file.
    """
    value = _first_value(text)
    if emorynlp.is_own_json(value):
        return f"{file.uri} {emorynlp.OWN_JSON}"
    return (
        f"{file.uri} is JSON, not CSV: omit `format`, or set it to `{_json_format(text)}`, and "
        "use a JSON file extension"
    )


def _json_format(text: str) -> DataFormat:
    """Return the format of a JSON text: one of IEMOCAP's two layouts, or this project's own."""
    value = _first_value(text)
    if isinstance(value, list):
        first = value[0] if value and isinstance(value[0], dict) else {}
        return DataFormat.IEMOCAP if {"s_id", "sentences"} <= first.keys() else DataFormat.JSONL
    if not isinstance(value, dict):
        return DataFormat.JSONL
    if {"input", "target"} <= value.keys():
        prompt = value["input"]
        is_prompt = isinstance(prompt, str) and "select the emotional label" in prompt
        return DataFormat.IEMOCAP if is_prompt else DataFormat.JSONL
    dialogue = next(iter(value.values()), None)
    if isinstance(dialogue, dict) and {"sentences", "genders"} <= dialogue.keys():
        return DataFormat.IEMOCAP
    return DataFormat.JSONL


def _first_value(text: str) -> Any:
    """Return the value of a JSON text, or of its first line; None if neither is JSON."""
    value = _decode(text.partition("\n")[0])
    return _decode(text) if value is None else value


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
