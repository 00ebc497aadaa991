"""The labels of a turn, in the forms in which files have them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence

from selfemo_jobs.datasets.columns import LABEL, is_common_name
from selfemo_jobs.datasets.documents import Node
from selfemo_jobs.datasets.gold import GoldLabels, repeats_label
from selfemo_jobs.datasets.text_files import MOST_DIGITS

OWN_KEY = "labels"

_SEPARATORS = re.compile(r"[,;|]")


def label_node(turn: Node, columns: Mapping[str, str]) -> Node | None:
    """Return the labels of a turn object; None if it has none.

    They are below ``labels``, or below one other common key: ``label``, ``emotion``, ``emotions``.

    Raises
    ------
    BadInput
        If several other keys have a value.
    """
    for own in (columns.get(LABEL, OWN_KEY), OWN_KEY):
        if own in turn.value:
            return turn.find(own)
    keys = [key for key in turn.value if is_common_name(LABEL, key)]
    nodes = [node for key in keys if (node := turn.find(key))]
    if len(nodes) > 1:
        raise turn.error(
            f"has {' and '.join(f'`{key}`' for key in keys)}: specify the key of the labels in "
            "`dataset.columns.label`"
        )
    return nodes[0] if nodes else None


def label_values(
    node: Node, gold: GoldLabels, label_names: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the labels of a turn as texts.

    Parameters
    ----------
    node
        A label, a list of labels, or a text with several labels. A label is a text or a number.
    gold
        The label set. A text that is not one of its labels may have several.
    label_names
        The names of a column's numbers, by the column's name.

    Raises
    ------
    BadInput
        If the value is of another kind, or a list has a label twice.
    """
    names = label_names.get(node.key, ())
    if isinstance(node.value, list):
        values = [_label(item, names) for item in node.items()]
        if repeats_label(value for value in values if value):
            raise node.error("contains an emotion twice")
        return values
    value = _label(node, names)
    return [value] if gold.knows(value) else split_labels(value)


def split_labels(text: str) -> list[str]:
    """Return the labels of a cell: separated by commas, semicolons or bars, or a Python list.

    Examples
    --------
    >>> split_labels("joy, surprise"), split_labels("['joy']"), split_labels("no emotion")
    (['joy', 'surprise'], ['joy'], ['no emotion'])
    """
    if text.startswith("[") and text.endswith("]"):
        try:
            values = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            values = None
        if isinstance(values, list) and all(type(value) in {str, int} for value in values):
            return [str(value) for value in values]
    return [part.strip() for part in _SEPARATORS.split(text)]


def _label(node: Node, names: Sequence[str]) -> str:
    """Return a label as a text; empty for no label."""
    value = node.value
    if value is None:
        return ""
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        if not (names and digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
            return text
        value = int(text)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise node.error("must be text")
    if not names:
        return str(value)
    if not -1 <= value < len(names):
        raise node.error(f"is {value}: the labels are 0 to {len(names) - 1}")
    return "" if value < 0 else names[value]
