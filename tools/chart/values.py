"""Reads values.yaml with its comments, which are the documentation of the values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from tools.chart.common import ChartError


@dataclass(frozen=True)
class Value:
    """One key of values.yaml."""

    path: tuple[str, ...]
    default: Any
    text: str
    """The comment above it."""
    schema: dict[str, Any]
    """The content of ``@schema``."""
    children: list[Value] = field(default_factory=list)
    """The documented keys below it. Empty: it is a value, even if it is a mapping."""

    @property
    def name(self) -> str:
        """The key itself, without its parents."""
        return self.path[-1]

    def leaves(self) -> Iterator[Value]:
        """Yield the keys that have a value, not a section."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


def read_values(text: str) -> list[Value]:
    """Return the keys of a values file in order.

    Raises
    ------
    ChartError
        If a key with a value has no comment: each default must have its reason beside it.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ChartError("values.yaml must be a mapping")
    values = _keys(node, text.splitlines(), (), yaml.safe_load(text))
    for value in (leaf for top in values for leaf in top.leaves()):
        if not value.text:
            raise ChartError(f"values.yaml: `{'.'.join(value.path)}` has no comment above it")
    return values


def _keys(
    node: yaml.MappingNode, lines: list[str], parent: tuple[str, ...], defaults: dict[str, Any]
) -> list[Value]:
    values = []
    for key, below in node.value:
        path = (*parent, key.value)
        default = defaults[key.value]
        text, schema = _comment(lines, key.start_mark.line, key.start_mark.column)
        children = []
        if isinstance(below, yaml.MappingNode) and not below.flow_style:
            children = _keys(below, lines, path, default)
            if not any(leaf.text for child in children for leaf in child.leaves()):
                children = []  # no key below has a comment: the mapping is one value
        values.append(Value(path, default, text, schema, children))
    return values


def _comment(lines: list[str], line: int, column: int) -> tuple[str, dict[str, Any]]:
    """Return the text and the ``@schema`` of the comment directly above a line."""
    words: list[str] = []
    schema: dict[str, Any] = {}
    start = " " * column + "# "
    while line > 0 and lines[line - 1].startswith(start):
        line -= 1
        text = lines[line].removeprefix(start).strip()
        if text.startswith("@schema "):
            schema = {**json.loads(text.removeprefix("@schema ")), **schema}
        else:
            words.insert(0, text)
    return " ".join(words), schema
