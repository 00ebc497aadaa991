"""The parameters that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from selfemo_operator.cli.completion import complete_runs, complete_settings
from selfemo_operator.cli.version import print_version

#: The folder in which the runner stores its state, if no other is named.
DEFAULT_STATE = Path(".selfemo")


class Output(StrEnum):
    """The format of results."""

    TABLE = "table"
    JSON = "json"


Version = Annotated[
    bool,
    typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="YAML files of EmotionEvolutions, each with one or more documents. Use `-` for "
        "standard input.",
        show_default=False,
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME",
        help="The YAML file of an EmotionEvolution, or the name of a run in the state folder.",
        show_default=False,
        autocompletion=complete_runs,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override a field of spec with a YAML value. Can be repeated.",
        autocompletion=complete_settings,
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data", metavar="NAME=FOLDER", help="The local folder for data://NAME/…. Can be repeated."
    ),
]
State = Annotated[
    Path,
    typer.Option(
        "--state",
        envvar="SELFEMO_STATE",
        metavar="FOLDER",
        help="The folder in which the runner stores its state.",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="The output format.")]
