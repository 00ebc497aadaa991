"""The commands around an evolution: a first file, the schema, and whether all is installed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from selfemo_api.packaged_files import crd_file
from selfemo_api.schema.editor_schema import editor_schema
from selfemo_api.text.control_characters import json_text
from selfemo_operator.cli.command import command
from selfemo_operator.cli.completion import (
    complete_examples,
    complete_presets,
    complete_recipes,
)
from selfemo_operator.cli.parameters import DEFAULT_STATE, Output, OutputOption, State
from selfemo_operator.cli.setup.doctor import doctor
from selfemo_operator.cli.setup.example import write_example
from selfemo_operator.cli.setup.init import DEFAULT_FILE, InitOptions, init, preset_of
from selfemo_operator.local.state import RunnerError

_SETUP = "Setup"


def add_setup_commands(app: typer.Typer) -> None:
    """Add the commands to an application.

    Parameters
    ----------
    app
        The application.
    """
    command(app, "init", _SETUP)(init_command)
    command(app, "schema", _SETUP)(schema_command)
    command(app, "doctor", _SETUP)(doctor_command)


def init_command(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help=f"The file to write, or `-` for standard output. Default: {DEFAULT_FILE}, or "
            "the example's name.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="URI", help="The model. Default: a small model.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FOLDER|URI", help="The folder or URI of the dialogues."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A published dataset: MELD, EmoryNLP or IEMOCAP.",
            autocompletion=complete_presets,
        ),
    ] = None,
    labels: Annotated[str | None, typer.Option(metavar="LABEL,…", help="The label set.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The recipe, which sets all other settings.",
            autocompletion=complete_recipes,
        ),
    ] = None,
    example: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Copy an example with its dialogues. `demo` needs nothing else.",
            autocompletion=complete_examples,
        ),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Write the YAML file of a first evolution, with comments.

    Without options, the command prompts for values in a terminal. It never overwrites a file. It
    also writes the schema for editors to the `.selfemo` folder next to the file.
    """
    published = preset_of(preset) if preset else None
    options = InitOptions(model, data, published, labels, recipe)
    if example and options.given:
        raise RunnerError("--example copies a complete file: do not combine it with other options")
    if example:
        write_example(example, file, as_json=output is Output.JSON)
    else:
        init(file or DEFAULT_FILE, options, as_json=output is Output.JSON)


def schema_command(
    crd: Annotated[
        bool,
        typer.Option("--crd", help="Print the CustomResourceDefinition, for `kubectl apply`."),
    ] = False,
) -> None:
    """Print the JSON Schema of the YAML file, for editors."""
    if crd:
        sys.stdout.write(crd_file().read_text(encoding="utf-8"))
    else:
        sys.stdout.write(json_text(editor_schema(), indent=1) + "\n")


def doctor_command(
    state: State = DEFAULT_STATE,
    network: Annotated[
        bool,
        typer.Option("--network", help="Also check whether the Hugging Face Hub and S3 respond."),
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check this machine: extras, GPU, memory, disk, network, cluster.

    It starts nothing, and imports no library of the jobs.
    """
    raise typer.Exit(doctor(state, network=network, as_json=output is Output.JSON))
