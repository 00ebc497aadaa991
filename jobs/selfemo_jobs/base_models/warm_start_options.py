"""The options of a warm start: each is declared once, here, with the reason for its default.

The command ``selfemo model warm-start`` makes its options from these types, and the studies' files
use :class:`TrainingOptions` as they are. This module needs no torch.
"""

from __future__ import annotations

import argparse
from typing import Annotated, Any, get_args

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from selfemo_api.api_model import ApiModel, Share, first_problem
from selfemo_api.spec import View
from selfemo_jobs.errors import BadInput


class TrainingOptions(ApiModel):
    """How the weights are trained, whatever the model is asked."""

    steps: Annotated[int, Field(ge=1)] = 120
    """Steps of the optimizer. With the default batch, 120 steps read the labeled utterances of
    about a hundred dialogues twice."""
    batch_size: Annotated[int, Field(ge=1)] = 24
    """Examples of a step, of both roles together. 24 have most emotions among them, and a CPU with
    little memory trains on them."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """The highest learning rate, after the warm-up. 3e-4 suits all weights of a model of some
    hundred million parameters; a model of billions needs about 1e-5."""
    responder_share: Share = 0.25
    """The share of examples that teach the responder. A quarter, because recognition is what the
    evaluation measures."""
    freeze_embeddings: bool = False
    """Leave the embeddings and the output head as they are. Off, because it pays only where they
    are half of a small model's weights: a few hundred dialogues teach them nothing."""
    views: list[View] = []
    """How much of the dialogue the recognizer's examples show: each utterance gives one example in
    each view. Give the views of `reward.judge.views`, so that the judge has learned to read them.
    Without one, the examples show `past` turns."""
    train_layers: Annotated[int, Field(ge=1)] | None = None
    """Train only this many of the last layers. Without it, all are trained."""


class WarmStartOptions(TrainingOptions):
    """How the weights are trained, and what the model is asked."""

    prompts: str = "compact-v1"
    """The prompt set; give the evolution's `model.prompts`. `compact-v1` is for small models, which
    are those that are warm-started on one machine."""
    past: Annotated[int, Field(ge=0, le=64)] = 1
    """Turns before the target that a prompt shows; give the evolution's `dataset.context.past`. One
    turn keeps the prompts short, and so the training on a CPU fast."""
    max_prompt_tokens: Annotated[int, Field(ge=32, le=32768)] = 256
    """The longest prompt; longer ones lose their oldest turns. 256 tokens hold a few turns."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The seed of the order in which examples are read, and of dropout."""


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
        raise BadInput(f"--view {text}: must be two whole numbers from 0 to 64, as 1,0") from None
