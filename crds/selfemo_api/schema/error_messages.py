"""Errors of Pydantic in the words of the API server."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from selfemo_api.recipes import written_path
from selfemo_api.schema.strict_yaml import UNKNOWN_FIELD, Problem
from selfemo_api.text.formatting import shortened

#: The maximum length in characters of a value that a message quotes.
_LONGEST_VALUE = 1000
#: The messages of the API server, by Pydantic's types of errors.
_MESSAGES = {
    "missing": "Required value",
    "greater_than_equal": "Invalid value: {input}: should be greater than or equal to {ge}",
    "greater_than": "Invalid value: {input}: should be greater than {gt}",
    "less_than_equal": "Invalid value: {input}: should be less than or equal to {le}",
    "less_than": "Invalid value: {input}: should be less than {lt}",
    "string_pattern_mismatch": "Invalid value: {input}: should match '{pattern}'",
    "string_too_short": "Invalid value: {input}: should be at least {min_length} chars long",
    "string_too_long": "Too long: may not be more than {max_length} bytes",
    "too_short": "Invalid value: {actual_length}: should have at least {min_length} items",
    "too_long": "Too many: {actual_length}: must have at most {max_length} items",
    "enum": "Unsupported value: {input}: supported values: {expected}",
    "literal_error": "Unsupported value: {input}: supported values: {expected}",
    "value_error": "{error}",
    "extra_forbidden": UNKNOWN_FIELD,
}


def problems_of(error: ValidationError) -> list[Problem]:
    """Return the problems of an object that the types reject.

    Parameters
    ----------
    error
        The error of Pydantic. A setting without a field is named as users write it, below
        ``spec.overrides``.
    """
    return [problem_of(details) for details in error.errors()]


def problem_of(details: ErrorDetails) -> Problem:
    """Return the problem of one of Pydantic's errors."""
    field = written_field(_dotted_path(details["loc"]))
    return Problem(field or "spec", _message_of(details))


def written_field(field: str) -> str:
    """Return the field in which users write a value of the resolved spec."""
    inner = field.removeprefix("spec.")
    return field if inner == field else f"spec.{written_path(inner)}"


def _message_of(error: ErrorDetails) -> str:
    """Return the message of the API server for one of Pydantic's errors."""
    template = _MESSAGES.get(error["type"])
    value_text = _as_json(error["input"])
    if template is None:
        return f"Invalid value: {value_text}: {error['msg']}"
    context = {key: _as_json(value) for key, value in error.get("ctx", {}).items()}
    for key in ("pattern", "error"):
        context[key] = str(error.get("ctx", {}).get(key))
    expected = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    if error["type"] == "too_long":
        context["actual_length"] = str(len(error["input"]))  # missing in the error of a mapping
    context["expected"] = ", ".join(f'"{value}"' for value in expected)
    return template.format(**{**context, "input": value_text})


def _as_json(value: Any) -> str:
    """Return a value as JSON text, with whole numbers as integers."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return shortened(json.dumps(value, ensure_ascii=False, default=str), _LONGEST_VALUE)


def _dotted_path(location: tuple[int | str, ...]) -> str:
    """Return the location of an error of Pydantic as a dotted path, such as ``labels[0]``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")
