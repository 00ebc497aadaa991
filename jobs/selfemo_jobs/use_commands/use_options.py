"""The options that several commands have: the model, its engine, and the dialogues."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from selfemo_api.spec import DataFormat, Engine, StorageSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.command_line import add_data_option
from selfemo_jobs.use_commands.request_checks import allowed_name

if TYPE_CHECKING:
    from selfemo_api.model_description import Decoding
    from selfemo_jobs.models.model_reference import ReferenceOptions, ResolvedModel

#: The name of the format of plain text, beside those of `DataFormat`.
PLAIN_TEXT = "Text"
#: The largest value of `dataset.context.past`.
_MOST_CONTEXT = 64
#: The largest number of a port.
_MOST_PORT = 65535
#: The share of a GPU's memory that vLLM takes by itself: its own default.
_GPU_SHARE = 0.9
#: The share of each of two engines on a GPU: half of it.
_HALF_GPU_SHARE = 0.45


def port_number(text: str) -> int:
    """Return the number of a port, as the type of an option.

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no such port.

    Examples
    --------
    >>> port_number("8000")
    8000
    """
    if not (text.isdecimal() and int(text) <= _MOST_PORT):
        raise argparse.ArgumentTypeError(f"{text}: a port is a number from 0 to {_MOST_PORT}")
    return int(text)


def add_allow_host_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option for further names of a server that is for this machine.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    parser.add_argument(
        "--allow-host",
        type=allowed_name,
        action="append",
        default=[],
        metavar="NAME",
        help="an additional hostname to accept, for example that of a reverse proxy in front of "
        "the server. Can be repeated. Requests for other hostnames are rejected, because any "
        "web page can send them",
    )


def add_state_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option for the state folder, which is that of `selfemo run`.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(os.environ.get("SELFEMO_STATE", ".selfemo")),
        metavar="FOLDER",
        help="the folder in which `selfemo run` stores the state of evolutions",
    )


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add the reference of a model.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="the folder or URI of a model or run, a manifest.json, or the YAML file of an "
        "evolution. A run or an evolution refers to its best model",
    )


def add_reference_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a command line may add to the reference of a model.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    parser.add_argument(
        "--generation",
        type=int,
        metavar="N",
        help="use the model of this generation of an evolution. Default: the best model",
    )
    add_state_argument(parser)
    parser.add_argument(
        "--labels",
        metavar="LABEL,…",
        help="the label set of a model that selfemo did not create",
    )
    parser.add_argument("--revision", help="the revision of a model on the Hugging Face Hub")
    add_data_option(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and how it is run.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    add_model_argument(parser)
    add_reference_arguments(parser)
    parser.add_argument(
        "--engine",
        choices=[engine.value for engine in Engine],
        help="the engine that runs the model. Default: the engine used to evaluate it",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="the number of turns in a batch of the Transformers engine. Default: the batch "
        "size of a run's evaluation",
    )
    parser.add_argument(
        "--device",
        help="the device of the Transformers engine, for example cuda:1. Default: the first "
        "GPU, or the CPU",
    )
    parser.add_argument(
        "--context",
        type=int,
        metavar="PAST",
        help="the number of turns before the target turn that a prompt includes. Default: "
        "the same as in training",
    )


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the dialogues that a command reads.

    Parameters
    ----------
    parser
        The parser of the command.
    """
    parser.add_argument(
        "input",
        nargs="*",
        metavar="INPUT",
        help="a file, a folder, a pattern or a URI of dialogues in any format of `selfemo "
        "data`, or a text file with one turn per line. Default: standard input, like `-`",
    )
    parser.add_argument(
        "--text",
        action="append",
        metavar="TEXT",
        help="a turn, with or without a leading `Speaker: `. Repeat the option for each turn of "
        "the dialogue",
    )
    parser.add_argument(
        "--format",
        choices=[PLAIN_TEXT, *(kind.value for kind in DataFormat)],
        help="the format of the files. Default: inferred from their names and content",
    )
    parser.add_argument(
        "--columns",
        action="append",
        metavar="PART=COLUMN,…",
        help="the columns of the dialogue, turn, speaker and text. Can be repeated",
    )


def reference_options(
    arguments: argparse.Namespace, storage: StorageSpec | None = None
) -> ReferenceOptions:
    """Return the options with which the model is resolved.

    Parameters
    ----------
    arguments
        The parsed arguments.
    storage
        How ``s3://`` URIs are read. None: as the environment says.
    """
    from selfemo_jobs.datasets.label_set import split_labels
    from selfemo_jobs.models.model_reference import ReferenceOptions

    return ReferenceOptions(
        labels=split_labels(arguments.labels or ""),
        revision=arguments.revision,
        generation=arguments.generation,
        storage=storage,
        state=arguments.state,
    )


def other_model_options(
    arguments: argparse.Namespace, storage: StorageSpec | None = None
) -> ReferenceOptions:
    """Return the options with which another model than ``arguments.model`` is resolved.

    The generation and the revision are those of ``arguments.model`` alone.

    Parameters
    ----------
    arguments
        The parsed arguments.
    storage
        How ``s3://`` URIs are read. None: as the environment says.
    """
    options = reference_options(arguments, storage)
    return replace(options, generation=None, revision=None)


def open_model(arguments: argparse.Namespace, reference: str | None = None) -> ResolvedModel:
    """Return the folder and the description of a model, with the context of the options.

    Parameters
    ----------
    arguments
        The parsed arguments.
    reference
        The reference of another model than ``arguments.model``, for example of the judge.

    Raises
    ------
    BadInput
        If there is no such model, or the context is not valid.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    from selfemo_jobs.models.model_reference import resolve_model

    if reference is not None:
        model = resolve_model(reference, other_model_options(arguments))
    else:
        model = resolve_model(arguments.model, reference_options(arguments))
    return with_chosen_context(arguments, model)


def with_chosen_context(arguments: argparse.Namespace, model: ResolvedModel) -> ResolvedModel:
    """Return a model with the context of the options, if they have one.

    Parameters
    ----------
    arguments
        The parsed arguments.
    model
        The model.

    Raises
    ------
    BadInput
        If the context is not valid.
    """
    past = arguments.context
    if past is None:
        return model
    if not 0 <= past <= _MOST_CONTEXT:
        raise BadInput(f"--context {past}: must be from 0 to {_MOST_CONTEXT}")
    context = model.description.context.model_copy(update={"past": past})
    return model._replace(description=model.description.model_copy(update={"context": context}))


class EngineSettings(NamedTuple):
    """The engine that runs a model, with its arguments."""

    engine: Engine
    """The engine."""
    engine_args: dict[str, Any]
    """Its arguments."""


def engine_settings(arguments: argparse.Namespace, decoding: Decoding) -> EngineSettings:
    """Return the engine of the options; otherwise that with which the model was evaluated.

    Parameters
    ----------
    arguments
        The parsed arguments.
    decoding
        The decoding of the model's description.

    Raises
    ------
    BadInput
        If the engine has no such argument, or its value is not valid.
    """
    from selfemo_jobs.models.engine_arguments import engine_arguments

    engine = Engine(arguments.engine) if arguments.engine else decoding.engine
    values = engine_arguments(decoding, engine, None)
    options = {"batch_size": arguments.batch_size, "device": arguments.device}
    given = {name: value for name, value in options.items() if value is not None}
    if engine is not Engine.TRANSFORMERS:
        for name in given:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} is an option of the Transformers engine, not of {engine}")
        return EngineSettings(engine, values)
    if given.get("batch_size", 1) < 1:
        raise BadInput(f"--batch-size {arguments.batch_size}: must be 1 or more")
    return EngineSettings(engine, {**values, **given})


def side_by_side(first: EngineSettings, second: EngineSettings) -> tuple[EngineSettings, ...]:
    """Return the settings of two engines that are open at the same time.

    Each engine of vLLM takes the share of a GPU's memory that its argument names, also if the model
    is small, and the second one cannot start without it. The argument of a description was that of
    an engine alone, so two that are too large together get less.

    Parameters
    ----------
    first, second
        The settings of each engine alone.

    Examples
    --------
    >>> alone = EngineSettings(Engine.VLLM, {})
    >>> [settings.engine_args for settings in side_by_side(alone, alone)]
    [{'gpu_memory_utilization': 0.45}, {'gpu_memory_utilization': 0.45}]
    """
    both = first, second
    if any(settings.engine is not Engine.VLLM for settings in both):
        return both
    name = "gpu_memory_utilization"
    values = [settings.engine_args.get(name) for settings in both]
    shares = [value if isinstance(value, int | float) else _GPU_SHARE for value in values]
    if sum(shares) <= _GPU_SHARE:
        return both
    return tuple(
        settings._replace(engine_args={**settings.engine_args, name: min(share, _HALF_GPU_SHARE)})
        for settings, share in zip(both, shares, strict=True)
    )
