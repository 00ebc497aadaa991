"""``selfemo data convert``: dialogues of any readable format as JSON Lines."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from selfemo_api.contract import ExitCode
from selfemo_api.text.files import write_atomically
from selfemo_jobs.data_commands.options import (
    data_format,
    environment_store,
    read_options,
    set_data_volumes,
    source_uri,
)
from selfemo_jobs.datasets.dialogue import Dialogue
from selfemo_jobs.datasets.fetch import fetch_source
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
    output: Path = arguments.output
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        files = fetch_source(source_uri(arguments.source), environment_store(work), work)
        if output.exists() and any(file.path.samefile(output) for file in files.files):
            raise BadInput(f"{output} is a file of the source: choose another --output")
        content = read_source(files, data_format(arguments), options)
    data = to_json_lines(content.dialogues)
    if output.suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # equal dialogues give an equal file
    try:
        write_atomically(output, data)
    except OSError as error:
        raise BadInput(f"{output} cannot be written: {error.strerror}") from None
    for warning in content.warnings:
        sys.stderr.write(f"warning: {arguments.source}: {warning.message}\n")
    turns = sum(len(dialogue.turns) for dialogue in content.dialogues)
    sys.stdout.write(f"{output}: {len(content.dialogues)} dialogues, {turns} turns\n")
    return ExitCode.OK


def to_json_lines(dialogues: Iterable[Dialogue]) -> bytes:
    """Return dialogues in this project's own format, in UTF-8.

    Parameters
    ----------
    dialogues
        The dialogues. A turn without labels has no key for them.

    Examples
    --------
    >>> from selfemo_jobs.datasets.dialogue import Utterance
    >>> print(to_json_lines([Dialogue("d1", (Utterance("Ann", "Hi"),))]).decode().strip())
    {"id": "d1", "turns": [{"speaker": "Ann", "text": "Hi"}]}
    """
    return "".join(
        json.dumps(_record(dialogue), ensure_ascii=False) + "\n" for dialogue in dialogues
    ).encode()


def _record(dialogue: Dialogue) -> dict[str, Any]:
    """Return a dialogue as a JSON object."""
    turns = [
        {"speaker": turn.speaker, "text": turn.text}
        | ({"labels": list(turn.labels)} if turn.labels else {})
        for turn in dialogue.turns
    ]
    return {"id": dialogue.id, "turns": turns}
