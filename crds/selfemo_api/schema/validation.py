"""Checks a YAML file as the API server does, with the same messages, before anything runs.

The bounds come from the types from which the CRD is generated. The rules are the CEL expressions
of the CRD, run by a CEL interpreter on the object as it was written. All rules then also hold for
the resolved spec, with the values of the recipe. The API server cannot check that.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes import written_path
from selfemo_api.recipes.recipe import RECIPES, is_override_only, misplaced_overrides
from selfemo_api.recipes.resolve import with_recipe
from selfemo_api.schema.assignment import set_in_spec
from selfemo_api.schema.conformance import conform
from selfemo_api.schema.crd import ROOT_RULES
from selfemo_api.schema.error_messages import problem_of, problems_of
from selfemo_api.schema.rules import (
    broken_rules,
    check_edit,
    check_resolved,
    check_written,
    crd_schema,
    resolved_schema,
)
from selfemo_api.schema.strict_yaml import (
    PARSE_ERRORS,
    UNKNOWN_FIELD,
    Problem,
    line_of,
    parse_documents,
    parse_yaml,
)
from selfemo_api.schema.suggestions import with_suggestion

__all__ = [
    "InvalidEvolution",
    "Problem",
    "check",
    "check_edit",
    "examine",
    "load_evolution",
    "load_evolutions",
]

#: The message of a text that is not an object.
_NO_OBJECT = "must contain one EmotionEvolution object"
#: The maximum number of problems that are reported per document. For each, the line is looked up.
_MOST_PROBLEMS = 100
#: The maximum length of the reason why a text is not YAML, in characters: it may quote the text.
_LONGEST = 300
#: The parts of an object that the rules read.
_PARTS = ("spec", "metadata")
#: The required values that a preset can provide.
_FROM_PRESET = (("spec", "dataset", "labels"), ("spec", "dataset", "sources"))


class InvalidEvolution(Exception):
    """A file that the API server would reject.

    Parameters
    ----------
    path
        The file, or the name of one of its documents.
    problems
        All problems of the file.
    """

    def __init__(self, path: Path | str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self.parts = [(path, problem) for problem in problems]
        """Each problem with its document."""
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))

    @classmethod
    def of(cls, errors: Sequence[InvalidEvolution]) -> InvalidEvolution:
        """Return one error with the problems of several documents.

        Parameters
        ----------
        errors
            The errors of the documents, at least one.
        """
        error = cls(errors[0].path, [p for e in errors for p in e.problems])
        error.args = ("\n".join(map(str, errors)),)
        error.parts = [part for e in errors for part in e.parts]
        return error


def load_evolution(path: Path, changes: dict[str, Any] | None = None) -> EmotionEvolution:
    """Return the evolution that a YAML file describes, without its status.

    Parameters
    ----------
    path
        A file with one document.
    changes
        Values that replace those of the file, by dotted path below ``spec`` (``--set``). A setting
        without a field is put below ``overrides``.

    Raises
    ------
    InvalidEvolution
        If the file is not valid. The exception lists all problems, each with its field and line.
    """
    document, node = _parse(path)
    return evolution_of(path, document, node, changes or {})


def load_evolutions(
    name: Path | str, text: str, changes: dict[str, Any] | None = None
) -> list[EmotionEvolution | InvalidEvolution]:
    """Return the evolution of each document of a text, or what is wrong with the document.

    Parameters
    ----------
    name
        The name of the text in messages, for example the path of its file.
    text
        YAML, in which `---` divides documents.
    changes
        Values that replace those of each document, see :func:`load_evolution`.

    Raises
    ------
    InvalidEvolution
        If the text is not YAML, or contains no document.
    """
    try:
        documents = parse_documents(text)
    except PARSE_ERRORS as error:
        raise InvalidEvolution(name, [_parse_problem(error)]) from None
    if not documents:
        raise InvalidEvolution(name, [Problem("", _NO_OBJECT)])
    evolutions: list[EmotionEvolution | InvalidEvolution] = []
    for index, (document, node) in enumerate(documents, start=1):
        of_document = name if len(documents) == 1 else f"{name} (document {index})"
        try:
            evolutions.append(evolution_of(of_document, document, node, changes or {}))
        except InvalidEvolution as error:
            evolutions.append(error)
    return evolutions


def evolution_of(
    path: Path | str, document: Any, node: yaml.Node | None, changes: dict[str, Any]
) -> EmotionEvolution:
    """Return the evolution that a document describes.

    Parameters
    ----------
    path
        The name of the document in messages.
    document
        The value of the document. The changes are made in place.
    node
        The node of the document, which has the line numbers.
    changes
        Values that replace those of the document, see :func:`load_evolution`.

    Raises
    ------
    InvalidEvolution
        If the document is not valid.
    """
    if not isinstance(document, dict):
        raise InvalidEvolution(path, [Problem("", _NO_OBJECT)])
    for dotted, value in changes.items():
        problem = set_in_spec(document, dotted, value)
        if problem is not None:
            raise InvalidEvolution(path, [problem])
    document, problems = examine(document)
    if problems:
        changed, count = list(changes), len(problems)
        problems = [
            with_suggestion(_with_line(p, node, changed)) for p in problems[:_MOST_PROBLEMS]
        ]
        if count > _MOST_PROBLEMS:
            problems.append(Problem("", f"and {count - _MOST_PROBLEMS} more problems"))
        raise InvalidEvolution(path, problems)
    return EmotionEvolution.model_validate(document)


def check(document: dict[str, Any]) -> list[Problem]:
    """Return the problems for which the API server would reject an object.

    Parameters
    ----------
    document
        The object. It is not changed.

    Examples
    --------
    >>> document = {"apiVersion": "selfemo.dev/v1alpha1", "kind": "EmotionEvolution", "spec": {}}
    >>> for problem in check(document | {"metadata": {"name": "demo"}}):
    ...     print(problem)
    spec.model: Required value
    spec.dataset: Required value
    spec.storage: Required value
    """
    return examine(document)[1]


def examine(document: dict[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return an object as the API server would store it, and its problems.

    Parameters
    ----------
    document
        The object. It is not changed.
    """
    document, problems = conform(document, crd_schema())
    document = {key: value for key, value in document.items() if key != "status"}
    for name in ("apiVersion", "kind"):
        if name not in document:
            problems.append(Problem(name, "Required value"))
    blocking = [p for p in problems if p.message != UNKNOWN_FIELD and p.field.startswith(_PARTS)]
    problems = [_with_hint(problem) for problem in problems]
    spec = document["spec"] if isinstance(document.get("spec"), dict) else {}
    blocking += _unresolved(spec)
    problems += _unresolved(spec)
    mistyped = {problem.field for problem in problems}
    bounds = _bounds_problems(document)
    problems += [problem for problem in bounds if problem.field not in mistyped]
    if not blocking and not bounds:
        problems += _rule_problems(document)
    return document, problems


def _with_hint(problem: Problem) -> Problem:
    """Return the problem of an unknown field, or where its setting belongs if it exists."""
    inner = problem.field.removeprefix("spec.")
    if problem.message != UNKNOWN_FIELD or inner == problem.field or not is_override_only(inner):
        return problem
    message = f"has no dedicated field: set `{written_path(inner)}`"
    return Problem(problem.field, message, problem.line)


def _unresolved(spec: dict[str, Any]) -> list[Problem]:
    """Return the problems of the recipe and of the overrides of a spec."""
    problems: list[Problem] = []
    if _names_unknown_recipe(spec):
        message = f"there is no recipe `{spec['recipe']}`; available: {', '.join(RECIPES)}"
        problems.append(Problem("spec.recipe", message))
    overrides = spec.get("overrides")
    if not isinstance(overrides, dict):
        return problems
    for path, message in misplaced_overrides(overrides).items():
        problems.append(Problem(f"spec.overrides.{path}", message))
    misplaced = {problem.field for problem in problems}
    _, mistyped = conform(overrides, resolved_schema(), "spec.overrides")
    return problems + [problem for problem in mistyped if problem.field not in misplaced]


def _names_unknown_recipe(spec: dict[str, Any]) -> bool:
    return isinstance(spec.get("recipe"), str) and spec["recipe"] not in RECIPES


def _bounds_problems(document: dict[str, Any]) -> list[Problem]:
    """Return the values that the types reject, by the fields in which users write them.

    A recipe and overrides that cannot be read are left out: they are reported separately.
    """
    spec, missing = document.get("spec"), []
    if isinstance(spec, dict):
        # a recipe may set values in a part that the user must write
        required = crd_schema()["properties"]["spec"]["required"]
        missing = [f"spec.{name}" for name in required if name not in spec]
        left_out = ["recipe"] if _names_unknown_recipe(spec) else []
        overrides = spec.get("overrides")
        if isinstance(overrides, dict) and misplaced_overrides(overrides):
            left_out.append("overrides")
        spec = with_recipe({name: spec[name] for name in spec if name not in left_out})
    try:
        EmotionEvolution.model_validate({**document, "spec": spec, "written": {}})
    except ValidationError as error:
        problems = [problem_of(e) for e in error.errors() if not _is_from_preset(e)]
    else:
        problems = []
    absent = [Problem(field, "Required value") for field in missing]
    return absent + [p for p in problems if not _is_in(p.field, missing)]


def _is_in(field: str, parts: list[str]) -> bool:
    return any(f"{field}.".startswith(f"{part}.") for part in parts)


def _is_from_preset(details: ErrorDetails) -> bool:
    """Return whether a value is missing that a preset can provide: a rule of the CRD reports it."""
    return details["type"] == "missing" and details["loc"] in _FROM_PRESET


def _rule_problems(document: dict[str, Any]) -> list[Problem]:
    """Return the problems of a readable object by the rules of the CRD and of the types."""
    name = document["metadata"]["name"]
    rules = [rule for rule in ROOT_RULES if not rule.is_transition]
    problems = broken_rules(rules, {"metadata": {"name": name}}, None, "metadata.name")
    problems += check_written(document["spec"])
    try:
        evolution = EmotionEvolution.model_validate(document)
    except ValidationError as error:
        return problems or problems_of(error)
    return problems + [p for p in check_resolved(evolution.spec) if p not in problems]


def _parse(path: Path) -> tuple[dict[str, Any], yaml.Node | None]:
    """Return the object of a file, and its node."""
    try:
        document, node = parse_yaml(read_text(path))
    except PARSE_ERRORS as error:
        raise InvalidEvolution(path, [_parse_problem(error)]) from None
    if not isinstance(document, dict):
        raise InvalidEvolution(path, [Problem("", _NO_OBJECT)])
    return document, node


def _parse_problem(error: Exception) -> Problem:
    """Return the problem of a text that could not be parsed."""
    if isinstance(error, RecursionError):
        return Problem("", "is nested too deeply")
    if not isinstance(error, yaml.YAMLError):
        return Problem("", f"is not YAML: {error}")
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else None
    if isinstance(error, yaml.composer.ComposerError) and "another document" in problem:
        return Problem("", "contains several documents: put each document into its own file", line)
    return Problem("", f"is not YAML: {problem[:_LONGEST]}", line)


def read_text(path: Path) -> str:
    """Return the text of a file. Raises InvalidEvolution if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidEvolution(path, [Problem("", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise InvalidEvolution(path, [Problem("", f"is not UTF-8 (byte {error.start})")]) from None


def _with_line(problem: Problem, node: yaml.Node | None, changed: list[str]) -> Problem:
    """Return a problem with its line, or with the path of the change that it came from.

    Parameters
    ----------
    problem
        The problem.
    node
        The node of the document.
    changed
        The dotted paths below ``spec`` of the values that did not come from the file.
    """
    place = problem.field.replace("[", ".[") + "."
    for path in changed:
        written = f"spec.{written_path(path)}"
        created = f"{written}.".startswith(place) and problem.message == UNKNOWN_FIELD
        if created or place.startswith((f"{written}.", f"spec.overrides.{path}.")):
            field = problem.field.replace("spec.overrides.", "spec.", 1)
            return Problem(
                problem.field if path.startswith("overrides.") else field, problem.message
            )
    return Problem(problem.field, problem.message, line_of(node, problem.field))
