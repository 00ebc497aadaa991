"""Reads a YAML document as the API server does: JSON types, no unknown field, no duplicate key.

Pydantic is lenient with types: it converts "8" to 8. PyYAML follows YAML 1.1: it reads 1e-6 and 08
as texts, 1:30 as 90, and a date as a date. kubectl reads 0.000001, 8, "1:30" and a text, and `y` as
true. A file that is valid here must not be rejected by the API server, or mean something else
there.

A document is limited by counts before it is examined: values (the values of an alias count each
time), depth, and the length of keys and numbers. Its size does not limit the work.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import yaml

from selfemo_api.schema.plain_numbers import MAX_NUMBER, plain_number
from selfemo_api.text.control_characters import printable, printable_lines
from selfemo_api.text.formatting import shortened

#: The maximum depth of a document. No Kubernetes object is that deep, but a document may contain
#: itself.
MAX_DEPTH = 64
#: The maximum number of values per document. One that uses every field has about two thousand; the
#: card of a published model may have tens of thousands. An alias to a list of aliases, and so on,
#: expands to billions in a few lines.
MAX_VALUES = 50_000
#: The maximum length of a key in characters: YAML's limit for keys without a question mark.
MAX_KEY = 1024
#: The maximum length of a problem's message in characters. It may quote a value of the document.
LONGEST_MESSAGE = 1500
#: What :func:`parse_yaml` and :func:`parse_documents` raise for a text that cannot be read.
PARSE_ERRORS = (yaml.YAMLError, ValueError, RecursionError)
#: The message for a field that the schema does not contain.
UNKNOWN_FIELD = "unknown field"


@dataclass(frozen=True)
class Problem:
    """One error in a document."""

    field: str
    """The dotted path, for example ``spec.selfPlay.groupSize``. Empty for the whole file."""
    message: str
    """What is wrong, in the words of the API server."""
    line: int | None = None
    """The line in the file, from 1. None if it is unknown."""

    def __post_init__(self) -> None:
        """Replace control characters: a key and a value of a document may have any.

        Line breaks of the message stay. The end of a long message, which quotes a value, does not.
        """
        object.__setattr__(self, "field", printable(self.field).replace("\t", "\ufffd"))
        message = shortened(printable_lines(self.message), LONGEST_MESSAGE)
        object.__setattr__(self, "message", message)

    def __str__(self) -> str:
        """Return the field, the message and the line as one line of text."""
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f" (line {self.line})" if self.line else "")


class _Loader(yaml.SafeLoader):
    """Reads scalars as kubectl does, and counts what a document makes others visit.

    Parameters
    ----------
    text
        The text of one document or of several.
    """

    bool_values: ClassVar[dict[str, bool]] = {
        **yaml.SafeLoader.bool_values,
        "y": True,
        "n": False,
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._values = 0
        #: The number of values below each node that is complete, by the identity of the node.
        self._sizes: dict[int, int] = {}

    def compose_document(self) -> yaml.Node | None:
        """Return the node of the next document."""
        self._depth, self._values, self._sizes = 0, 0, {}
        return super().compose_document()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node. Raises MarkedYAMLError or RecursionError at a limit."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        is_alias, before = isinstance(event, yaml.AliasEvent), self._values
        self._depth += 1
        if self._depth > MAX_DEPTH + 1:
            raise RecursionError
        self._count(1, event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        if is_alias:
            if id(node) not in self._sizes:
                raise RecursionError  # the alias is inside of what it names
            self._count(self._sizes[id(node)], event.start_mark)
        else:
            self._sizes[id(node)] = self._values - before
        self._depth -= 1
        return node

    def _count(self, values: int, mark: Any) -> None:
        """Add to the number of values. Raises MarkedYAMLError if there are too many."""
        self._values += values
        if self._values > MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MAX_VALUES:,} values (aliases count in full)",
                problem_mark=mark,
            )

    def resolve(self, kind: type[yaml.Node], value: str, implicit: Any) -> Any:
        """Return the tag of a node. A plain scalar is a number where kubectl reads one."""
        if kind is yaml.ScalarNode and implicit[0]:
            number = plain_number(value)
            if number is not None:
                return f"tag:yaml.org,2002:{type(number).__name__}"
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]

    def read(self, node: yaml.Node | None) -> Any:
        """Return the value of a node; None without one. Raises one of :data:`PARSE_ERRORS`."""
        if node is None:
            return None
        _check_keys(node, 0)
        try:
            return self.construct_document(node)
        except (LookupError, AttributeError, TypeError, OverflowError) as error:
            # a tag that its scalar does not match, for example `!!bool maybe`
            reason = f"a value does not match its tag ({type(error).__name__})"
            raise yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark) from None


#: Numbers that JSON does not support. They are reported with their field.
_NOT_JSON = {".inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}


def _construct_number(_loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    """Return the value of a number. Raises MarkedYAMLError for a long one, before it is read."""
    if len(node.value) > MAX_NUMBER:
        problem = f"a number of {len(node.value)} characters (at most {MAX_NUMBER})"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    number = plain_number(node.value)
    if number is None:
        number = _NOT_JSON.get(node.value.lower().removeprefix("+"))
    if number is None:
        problem = f"{shortened(node.value, 60)} is not a number"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    return number


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Loader.add_constructor(_tag, _construct_number)

_OTHER_RULES = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp", "value")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag not in _OTHER_RULES]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+."),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))


def is_plain_text(text: str) -> bool:
    """Return whether a text without quotes is read as this text, and not as a number or the like.

    Examples
    --------
    >>> is_plain_text("joy"), is_plain_text("008"), is_plain_text("y"), is_plain_text("null")
    (True, False, False, False)
    """
    loader = _Loader("")
    return bool(loader.resolve(yaml.ScalarNode, text, (True, False)) == "tag:yaml.org,2002:str")


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """Return the value of a YAML document, and its node, which has the line numbers.

    Parameters
    ----------
    text
        The text of one document.

    Raises
    ------
    yaml.YAMLError
        If the text is not YAML, contains several documents or a duplicate key, or exceeds a limit.
    ValueError
        If a scalar does not match its tag.
    RecursionError
        If the document is nested too deeply.

    Examples
    --------
    >>> parse_yaml("learningRate: 1e-6")[0]
    {'learningRate': 1e-06}
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return loader.read(node), node
    finally:
        loader.dispose()


def parse_documents(text: str) -> list[tuple[Any, yaml.Node | None]]:
    r"""Return the value and the node of each document of a text. Empty documents are left out.

    Parameters
    ----------
    text
        The text, in which `---` divides documents. Line numbers count from its beginning.

    Raises
    ------
    yaml.YAMLError
        If the text is not YAML, has a duplicate key, or a document exceeds a limit.
    ValueError
        If a scalar does not match its tag.
    RecursionError
        If a document is nested too deeply.

    Examples
    --------
    >>> [value for value, _ in parse_documents("a: 1\n---\n---\nb: 2")]
    [{'a': 1}, {'b': 2}]
    """
    loader = _Loader(text)
    documents = []
    try:
        while loader.check_node():
            node = loader.get_node()
            documents.append((loader.read(node), node))
    finally:
        loader.dispose()
    return [(value, node) for value, node in documents if value is not None]


def _check_keys(node: yaml.Node, depth: int) -> None:
    """Reject duplicate keys, long keys, and a depth that results from aliases."""
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, depth + 1)
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and len(key.value) > MAX_KEY:
                raise yaml.MarkedYAMLError(
                    problem=f"a key of {len(key.value)} characters (at most {MAX_KEY})",
                    problem_mark=key.start_mark,
                )
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in keys:
                    raise yaml.MarkedYAMLError(
                        problem=f"duplicate key {key.value!r}", problem_mark=key.start_mark
                    )
                keys.add(key.value)
            _check_keys(value, depth + 1)


def line_of(node: yaml.Node | None, field: str) -> int | None:
    r"""Return the line of a field, or of its nearest parent in the file; None if there is neither.

    Parameters
    ----------
    node
        The node of the document.
    field
        The dotted path of the field, with indices as in ``labels[0]``.

    Examples
    --------
    >>> line_of(parse_yaml("spec:\n  labels: [joy]")[1], "spec.labels[0]")
    2
    """
    line = None
    for part in field.replace("[", ".[").split("."):
        if isinstance(node, yaml.MappingNode):
            match = next((kv for kv in node.value if kv[0].value == part), None)
            if match is None:
                return line
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and part[1:-1].isdecimal():
            index = int(part[1:-1])
            if index >= len(node.value):
                return line
            node = node.value[index]
            line = node.start_mark.line + 1
    return line
