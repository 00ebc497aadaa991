"""Runs CEL expressions as the API server does: ``&&`` and ``||`` stop at the first operand."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import celpy
import lark
from celpy.celtypes import BoolType
from celpy.evaluation import CELEvalError, Evaluator


def evaluate(expressions: Sequence[str], values: Mapping[str, Any]) -> list[bool]:
    """Return whether each of some CEL expressions is true.

    Parameters
    ----------
    expressions
        The expressions.
    values
        The JSON value of each variable of the expressions, by name.

    Raises
    ------
    AssertionError
        If an expression fails, for example because it reads a field that does not exist.

    Examples
    --------
    >>> evaluate(["!has(self.goal) || self.goal > 0.5", "self.seed == 1"], {"self": {"seed": 7}})
    [True, False]
    """
    activation = {name: celpy.json_to_cel(value) for name, value in values.items()}
    return [_evaluate(expression, activation) for expression in expressions]


def _evaluate(expression: str, activation: Mapping[str, Any]) -> bool:
    try:
        return bool(_program(expression).evaluate(activation))
    except CELEvalError as error:
        raise AssertionError(f"the rule {expression!r} fails: {error}") from error


class _Evaluator(Evaluator):  # type: ignore[misc]
    """An evaluator that does not evaluate the second operand where the first one decides.

    celpy evaluates both. If the second one has a macro over a list, and fails for each item, each
    error contains the one before twice: memory then grows exponentially with the list.
    """

    def sub_evaluator(self, ast: lark.Tree[Any]) -> Evaluator:
        """Return an evaluator for an expression inside a macro."""
        return _Evaluator(ast, activation=self.activation)

    def conditionalor(self, tree: lark.Tree[Any]) -> Any:
        """Return the value of ``a || b``."""
        return self._first_that_is(tree, decisive=True)

    def conditionaland(self, tree: lark.Tree[Any]) -> Any:
        """Return the value of ``a && b``."""
        return self._first_that_is(tree, decisive=False)

    def _first_that_is(self, tree: lark.Tree[Any], *, decisive: bool) -> Any:
        """Return the first operand that decides, or the last one. An error decides nothing."""
        left = self.visit(tree.children[0])
        if len(tree.children) == 1 or _is(left, decisive):
            return left
        right = self.visit(tree.children[1])
        return right if _is(right, decisive) or isinstance(left, BoolType) else left


def _is(value: Any, expected: bool) -> bool:
    return isinstance(value, BoolType) and bool(value) == expected


class _Runner(celpy.InterpretedRunner):  # type: ignore[misc]
    def evaluate(self, context: Mapping[str, Any]) -> Any:
        return _Evaluator(ast=self.ast, activation=self.new_activation()).evaluate(context)


#: One thread compiles at a time. The first program takes a quarter of a second, for the parser:
#: with thirty threads that need it at the same moment, each would build its own parser.
_COMPILING = threading.Lock()


def compile_all(expressions: Iterable[str]) -> None:
    """Compile expressions, so that their first evaluation does not take longer than the others."""
    for expression in expressions:
        _program(expression)


def _program(expression: str) -> celpy.Runner:
    with _COMPILING:
        return _compiled(expression)


@lru_cache(maxsize=256)
def _compiled(expression: str) -> celpy.Runner:
    environment = celpy.Environment(runner_class=_Runner)
    return environment.program(environment.compile(expression))
