"""Compiles the templates of a prompt set, and refuses what a prompt does not need.

A template shows the parts of a dialogue: it has loops, conditions and a few filters. It calls no
function, changes no variable and sees no more of a turn than its speaker and text
(:class:`ShownTurn`). So it can neither run code, nor show a gold label to the model, nor grow
without limit: what it renders is at most a small multiple of its own text and the dialogue's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selfemo_jobs.errors import BadInput, error_line

#: The variables of each template, and of them those without which the prompt makes no sense.
VARIABLES = {
    "recognize": ("context", "speaker", "text", "labels", "future"),
    "respond": ("context", "speaker", "intended", "labels"),
}
REQUIRED = {"recognize": "text", "respond": "intended"}
#: The filters that a template may use. None of them makes a text longer, but for `join`.
FILTERS = (
    *("join", "length", "count", "lower", "upper", "title", "capitalize", "trim"),
    *("first", "last", "reverse"),
)
#: The attributes that a template may read: those of a turn, and those of a loop.
ATTRIBUTES = {
    "turn": ("speaker", "text"),
    "loop": ("index", "index0", "revindex", "revindex0", "first", "last", "length"),
}
#: The tests that a template may use, after `is`.
TESTS = ("defined", "undefined", "odd", "even")
#: The most loops inside each other: one over the turns, one over the labels.
MAX_LOOPS = 2

#: The parts of the template language that a template may use.
_ALLOWED_NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If),
    *(nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Getattr, nodes.Getitem, nodes.Slice),
    *(nodes.Filter, nodes.Test, nodes.CondExpr, nodes.Compare, nodes.Operand),
    *(nodes.And, nodes.Or, nodes.Not, nodes.Add, nodes.Sub, nodes.Concat, nodes.Neg),
)


@dataclass(frozen=True, repr=False)
class ShownTurn:
    """A turn as a template sees it: without its labels."""

    speaker: str
    """The speaker's name."""
    text: str
    """The words, on one line."""

    def __str__(self) -> str:
        """Return the turn as a line of the dialogue."""
        return f"{self.speaker}: {self.text}"

    __repr__ = __str__


_TURNS = (ShownTurn("Ann", "Hi."), ShownTurn("Ben", "Hello."))
_LABELS = ("joy", "anger")


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    # prompts are plain text, not HTML: nothing has to be escaped
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.globals.clear()
    return environment


def compile_template(name: str, text: str, where: str) -> Template:
    """Return a compiled template that renders any dialogue.

    Parameters
    ----------
    name
        The template: ``recognize`` or ``respond``.
    text
        Its text, in Jinja's language.
    where
        What the template belongs to, for messages.

    Raises
    ------
    BadInput
        If the text is not a template, uses a part of the language or a variable that it may not
        use, or does not show what the model is asked about. The message names the template and the
        variable, with the line where it can be told.
    """
    place = f"{where}: template `{name}`"
    try:
        _check_nodes(_environment().parse(text), name, place)
        template = _environment().from_string(text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise BadInput(f"{place}{f' line {line}' if line else ''}: {error.message}") from None
    except RecursionError:
        raise BadInput(f"{place}: it is nested too deeply") from None
    for sample in _samples(name):
        _render_sample(template, sample, place)
    return template


def _check_nodes(tree: nodes.Template, template: str, place: str) -> None:
    variables = VARIABLES[template]
    # what a loop or a condition assigns to is a name in the context "store"
    names = list(tree.find_all(nodes.Name))
    assigned = {name.name for name in names if name.ctx == "store"}
    used = {name.name for name in names if name.ctx == "load"}
    known = {*variables, *assigned, "loop"}
    for node in tree.find_all(nodes.Node):
        where = f"{place} line {node.lineno}" if node.lineno else place
        if isinstance(node, nodes.Name):
            if node.name not in known:
                raise BadInput(
                    f"{where}: `{node.name}` is not a variable of it; it has {', '.join(variables)}"
                )
        else:
            _check_node(node, where)
    if shadowed := sorted(assigned & {*variables, "loop"}):
        raise BadInput(f"{place}: the variable of a loop is `{shadowed[0]}`: give it another name")
    if REQUIRED[template] not in used:
        raise BadInput(f"{place}: it must show `{REQUIRED[template]}`")
    if _depth(tree) > MAX_LOOPS:
        raise BadInput(f"{place}: more than {MAX_LOOPS} loops are inside each other")


def _check_node(node: nodes.Node, where: str) -> None:
    """Refuse a part of the language that a template may not use."""
    if not isinstance(node, _ALLOWED_NODES) or (isinstance(node, nodes.For) and node.recursive):
        kind = type(node).__name__
        raise BadInput(f"{where}: a prompt may not use `{_NODE_WORDS.get(kind, kind.lower())}`")
    if isinstance(node, nodes.Filter):
        if node.name not in FILTERS:
            raise BadInput(
                f"{where}: `{node.name}` is not a filter of prompts ({', '.join(FILTERS)})"
            )
        if node.name == "join" and not _is_short_join(node):
            raise BadInput(
                f"{where}: `join` needs a list and a fixed text to put between its items"
            )
    if isinstance(node, nodes.Test) and node.name not in TESTS:
        raise BadInput(f"{where}: `{node.name}` is not a test of prompts ({', '.join(TESTS)})")
    if isinstance(node, nodes.Getattr):
        owner = "loop" if isinstance(node.node, nodes.Name) and node.node.name == "loop" else "turn"
        if node.attr not in ATTRIBUTES[owner]:
            names = ", ".join(ATTRIBUTES[owner])
            raise BadInput(f"{where}: `{node.attr}` is not a part of a {owner} ({names})")
    if isinstance(node, nodes.Getitem) and not _is_position(node.arg):
        raise BadInput(f"{where}: only whole numbers may be in square brackets, as `context[-1]`")


#: How a part of the language is written, by the name that Jinja gives it.
_NODE_WORDS = {
    "Assign": "set",
    "AssignBlock": "set",
    "Call": "a call, as f(x)",
    "Dict": "a mapping",
    "Extends": "extends",
    "Mul": "*",
    "Pow": "**",
    "Div": "/",
    "FloorDiv": "//",
    "FromImport": "import",
    "CallBlock": "call",
    "FilterBlock": "filter",
}


def _is_position(node: nodes.Node) -> bool:
    """Return whether what stands in square brackets is a whole number or a range of them.

    A text there would read any attribute of a turn.
    """
    if isinstance(node, nodes.Slice):
        return all(
            part is None or _is_position(part) for part in (node.start, node.stop, node.step)
        )
    if isinstance(node, nodes.Neg):
        return _is_position(node.node)
    return isinstance(node, nodes.Const) and type(node.value) is int


def _is_short_join(node: nodes.Filter) -> bool:
    """Return whether a join puts a fixed text between the items of a variable.

    A chain of joins, or one with a long text of the dialogue in between, would grow too fast.
    """
    constant = all(isinstance(argument, nodes.Const) for argument in node.args)
    inner = node.node
    while isinstance(inner, nodes.Filter | nodes.Getitem):
        if isinstance(inner, nodes.Filter) and inner.name == "join":
            return False
        inner = inner.node
    plain = not (node.kwargs or node.dyn_args or node.dyn_kwargs) and len(node.args) <= 1
    return constant and plain and isinstance(inner, nodes.Name)


def _depth(node: nodes.Node) -> int:
    """Return how many loops are inside each other."""
    inner = max((_depth(child) for child in node.iter_child_nodes()), default=0)
    return inner + isinstance(node, nodes.For)


def _samples(name: str) -> Sequence[Mapping[str, Any]]:
    """Return sample values of a template's variables, with and without other turns."""
    values: dict[str, Any] = {
        "speaker": "Ann",
        "text": "Well.",
        "labels": _LABELS,
        "intended": ("joy",),
    }
    names = VARIABLES[name]
    return [
        {k: v for k, v in {**values, "context": past, "future": later}.items() if k in names}
        for past in ((), _TURNS)
        for later in ((), _TURNS)
    ]


def _render_sample(template: Template, values: Mapping[str, Any], place: str) -> None:
    try:
        rendered = template.render(**values)
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise BadInput(f"{place}: {error_line(error)}") from None
    if not rendered.strip():
        raise BadInput(f"{place}: its prompt is empty")
