"""``selfemo data convert``: dialogues of any readable format as JSON Lines."""

from __future__ import annotations

import argparse
import gzip
import sys
import tempfile
from pathlib import Path

from selfemo_api.contract import ExitCode
from selfemo_api.text.control_characters import json_text, printable
from selfemo_api.text.files import write_atomically
from selfemo_jobs.data_commands.options import (
    data_format,
    environment_store,
    read_options,
    set_data_volumes,
    source_uri,
)
from selfemo_jobs.datasets.fetch import fetch_source
from selfemo_jobs.datasets.json_lines import to_json_lines
from selfemo_jobs.datasets.load import read_source
from selfemo_jobs.errors import BadInput


def convert(arguments: argparse.Namespace) -> int:
    """Write the dialogues of a source as JSON Lines, and return the exit code.

    Parameters
    ----------
    arguments
        The parsed options of the command.

    Raises
    ------
    BadInput
        If the source cannot be read, or the file cannot be written.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    set_data_volumes(arguments.data)
    options = read_options(arguments, read_labels=not arguments.no_labels)
    output: Path = arguments.to
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        files = fetch_source(source_uri(arguments.source), environment_store(work), work)
        if output.exists() and any(file.path.samefile(output) for file in files.files):
            raise BadInput(f"{output} is one of the source files: choose another --to")
        content = read_source(files, data_format(arguments), options)
    data = to_json_lines(content.dialogues)
    if output.suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # equal dialogues give an equal file
    try:
        write_atomically(output, data)
    except OSError as error:
        raise BadInput(f"{output} cannot be written: {error.strerror}") from None
    for warning in content.warnings:
        sys.stderr.write(printable(f"warning: {arguments.source}: {warning.message}") + "\n")
    turns = sum(len(dialogue.turns) for dialogue in content.dialogues)
    if arguments.output == "json":
        result = {"to": str(output), "dialogues": len(content.dialogues), "turns": turns}
        sys.stdout.write(json_text(result) + "\n")
    else:
        written = f"{len(content.dialogues)} dialogues, {turns} turns"
        sys.stdout.write(printable(f"{output}: {written}") + "\n")
    return ExitCode.OK
