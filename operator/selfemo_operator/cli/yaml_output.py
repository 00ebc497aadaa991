"""YAML that a command prints. It may hold text from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from selfemo_api.schema.strict_yaml import is_plain_text
from selfemo_api.text.control_characters import printable_lines


class _Dumper(yaml.SafeDumper):
    """Writes a text that kubectl would read as another type, such as 008, in quotes."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if is_plain_text(text) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text_node)


def yaml_text(documents: Sequence[Any], **options: Any) -> str:
    r"""Return values as the documents of a YAML text without control characters.

    A text with a control character is written with escapes. Its value is the same.

    Parameters
    ----------
    documents
        The value of each document.
    options
        Options of :func:`yaml.dump_all`.

    Examples
    --------
    >>> print(yaml_text([{"label": "\u202eyoj"}]), end="")
    label: "\u202Eyoj"
    >>> print(yaml_text([{"generation": "008"}]), end="")
    generation: '008'
    """
    options = {"Dumper": _Dumper, "sort_keys": False, **options}
    text: str = yaml.dump_all(documents, allow_unicode=True, **options)
    if printable_lines(text) == text:
        return text
    escaped: str = yaml.dump_all(documents, allow_unicode=False, **options)
    return escaped
