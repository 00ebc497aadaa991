"""The command-line options of ``selfemo model warm-start``.

They are made from :class:`~selfemo_jobs.stages.warmstart.options.WarmStartOptions`, which declares
each of them once. This module needs no torch.
"""

from __future__ import annotations

import argparse
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from selfemo_api.api_model import first_problem
from selfemo_api.spec import View
from selfemo_jobs.errors import BadInput
from selfemo_jobs.stages.warmstart.options import WarmStartOptions


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add an option for each field of :class:`WarmStartOptions` to a parser."""
    for name, field in WarmStartOptions.model_fields.items():
        help_text = " ".join((field.description or "").split()).replace("%", "%%")
        if name == "views":
            help_text += " Repeat the option for each view."
            options: dict[str, Any] = {"action": "append", "metavar": "PAST,FUTURE"}
        elif field.annotation is bool:
            options = {"action": "store_true"}
        else:
            options = {"type": _value_type(field)}
            help_text += "" if field.default is None else f" Default: {field.default}."
        default = [] if name == "views" else field.default
        parser.add_argument(option_of(name), dest=name, default=default, help=help_text, **options)


def option_of(name: str) -> str:
    """Return the command-line option of a field.

    Examples
    --------
    >>> option_of("batch_size")
    '--batch-size'
    """
    return "--view" if name == "views" else "--" + name.replace("_", "-")


def options_from(arguments: argparse.Namespace) -> WarmStartOptions:
    """Return the options that a command line gives.

    Raises
    ------
    BadInput
        If a value is out of range, or a view is not two numbers. The message names the option.
    """
    values = {name: getattr(arguments, name) for name in WarmStartOptions.model_fields}
    values["views"] = [_view(text) for text in values["views"]]
    try:
        return WarmStartOptions(**values)
    except ValidationError as error:
        name, message = first_problem(error)
        raise BadInput(f"{option_of(name)} {values[name]}: {message}") from None


def arguments_of(options: WarmStartOptions) -> list[str]:
    """Return the command line of the options that are not at their defaults.

    Examples
    --------
    >>> arguments_of(WarmStartOptions(steps=240, views=[View(past=1)], freeze_embeddings=True))
    ['--steps', '240', '--freeze-embeddings', '--view', '1,0']
    """
    arguments = []
    for name, field in WarmStartOptions.model_fields.items():
        value = getattr(options, name)
        if value == field.default:
            continue
        if name == "views":
            for view in value:
                arguments += [option_of(name), f"{view.past},{view.future}"]
        else:
            arguments += [option_of(name)] if value is True else [option_of(name), str(value)]
    return arguments


def _value_type(field: FieldInfo) -> Any:
    """Return the type of a field's value: ``int`` for a field of type ``int | None``."""
    kind: Any = field.annotation
    while get_args(kind):
        kind = get_args(kind)[0]
    return kind


def _view(text: str) -> View:
    """Return a view from its two numbers of turns. Raises BadInput."""
    try:
        past, future = map(int, text.split(","))
        return View(past=past, future=future)
    except ValueError:  # pydantic's error is one, too
        raise BadInput(
            f"--view {text}: must be two whole numbers from 0 to 64, for example 1,0"
        ) from None
