"""``python -m selfemo_jobs.data_commands check|convert``: what ``selfemo data`` runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.spec import DataFormat
from selfemo_jobs.runtime.command_line import (
    CommandParser,
    add_data_option,
    add_output_option,
    run_command_line,
)

_HELP = {
    "check": """Print dataset statistics and problems.

The sources are files, folders, patterns or URIs, or the YAML file of one evolution. The report
includes the number of dialogues, turns and labels, text lengths, unusual characters, duplicate
dialogues, and dialogues shared by two sources.""",
    "convert": "Convert dialogues from any supported format to JSON Lines.",
}


def parser() -> CommandParser:
    """Return the command's parser."""
    top = CommandParser(prog="selfemo data", description="Check or convert dialogues.")
    commands = top.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help=_first(_HELP["check"]), description=_HELP["check"])
    check.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="a file, a folder, a pattern, a URI, or the YAML file of an EmotionEvolution",
    )
    _add_source_options(check)
    check.add_argument(
        "--model",
        metavar="URI",
        help="the folder or URI of a model whose tokenizer measures lengths. Default: "
        "lengths in words",
    )
    add_output_option(check)
    convert = commands.add_parser("convert", help=_HELP["convert"], description=_HELP["convert"])
    convert.add_argument("source", metavar="SOURCE", help="a file, a folder, a pattern or a URI")
    convert.add_argument(
        "--to",
        type=Path,
        metavar="FILE",
        required=True,
        help="the JSON Lines file to write. Use a .gz extension to compress the output",
    )
    add_output_option(convert)
    _add_source_options(convert)
    convert.add_argument("--no-labels", action="store_true", help="omit the labels")
    return top


def _first(text: str) -> str:
    return text.partition("\n\n")[0]


def _add_source_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format",
        choices=[kind.value for kind in DataFormat],
        help="the format of the files. Default: inferred from their names and content",
    )
    command.add_argument(
        "--labels",
        metavar="LABEL,…",
        help="the label set. Other labels are errors. Default: any label is allowed",
    )
    command.add_argument(
        "--columns",
        action="append",
        metavar="PART=COLUMN,…",
        help="the columns of the dialogue, turn, speaker, text and label. Can be repeated",
    )
    command.add_argument(
        "--label-map",
        action="append",
        metavar="LABEL=NEW,…",
        help="new names for labels. An empty name removes a label. Can be repeated",
    )
    add_data_option(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command_line(parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "check":
        from selfemo_jobs.data_commands.check import check

        return check(arguments)
    from selfemo_jobs.data_commands.convert import convert

    return convert(arguments)


if __name__ == "__main__":
    sys.exit(main())
