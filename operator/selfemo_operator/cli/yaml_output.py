"""YAML that a command prints. It may hold text from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from selfemo_api.text.control_characters import printable_lines


def yaml_text(documents: Sequence[Any], **options: Any) -> str:
    r"""Return values as the documents of a YAML text without control characters.

    A text with a control character is written with escapes. Its value is the same.

    Parameters
    ----------
    documents
        The value of each document.
    options
        Options of :func:`yaml.safe_dump_all`.

    Examples
    --------
    >>> print(yaml_text([{"label": "\u202eyoj"}]), end="")
    label: "\u202Eyoj"
    """
    text: str = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, **options)
    if printable_lines(text) == text:
        return text
    escaped: str = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=False, **options)
    return escaped
