"""``selfemo init --example``: copies an example, with its dialogues if it has some."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.resources.abc import Traversable
from pathlib import Path

from selfemo_api.packaged_files import example_names, examples_folder
from selfemo_api.text.control_characters import json_text
from selfemo_api.text.suggestions import did_you_mean
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.local.state import RunnerError


def write_example(name: str, file: str | None, *, as_json: bool) -> None:
    """Copy an example, and print what to do next.

    The dialogues of an example are copied into a folder with its name, beside the file.

    Parameters
    ----------
    name
        The name of the example.
    file
        The path of the file to write. None: the name of the example. ``-``: standard output, and
        no dialogues.
    as_json
        Print a JSON object.

    Raises
    ------
    RunnerError
        If there is no such example, or a file or the folder of the dialogues exists.
    """
    if name not in example_names():
        hint = (
            did_you_mean(name, example_names())
            or f"; available examples: {', '.join(example_names())}"
        )
        raise RunnerError(f"there is no example `{name}`{hint}")
    text = (examples_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    if file == "-":
        sys.stdout.write(text)
        return
    path = Path(file or f"{name}.yaml")
    data = examples_folder() / name
    folder = path.parent / name if data.is_dir() else None
    for new in (path, folder):
        if new is not None and new.exists():
            raise RunnerError(f"{new} already exists: choose another file, or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder is not None:
            _copy(data, folder)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise RunnerError(f"{path} cannot be written: {error.strerror}") from None
    volumes = sorted(set(re.findall(r"data://([a-z0-9-]+)", text)))
    places = [f"{volume}={folder if volume == name else 'FOLDER'}" for volume in volumes]
    if as_json:
        sys.stdout.write(json_text({"file": str(path), "data": " ".join(places)}) + "\n")
        return
    options = "".join(f" --data {shlex.quote(place)}" for place in places)
    print_line(f"Wrote {path}. Next:")
    quoted = shlex.quote(str(path))
    print_line(f"  selfemo check {quoted}{options}")
    print_line(f"  selfemo run {quoted}{options}")


def _copy(source: Traversable, to: Path) -> None:
    """Copy a folder of the package, which need not be a folder of the file system."""
    to.mkdir()
    for entry in source.iterdir():
        if entry.is_file():
            (to / entry.name).write_bytes(entry.read_bytes())
