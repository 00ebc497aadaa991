"""``selfemo init``: writes the YAML file of a first evolution, with comments."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from selfemo_api.api_model import API_VERSION, KIND
from selfemo_api.contract import ExitCode
from selfemo_api.recipes import RECIPES
from selfemo_api.recipes.presets import PUBLISHED
from selfemo_api.schema.editor_schema import editor_schema
from selfemo_api.schema.validation import load_evolutions
from selfemo_api.spec import Preset
from selfemo_api.text.control_characters import json_text
from selfemo_api.text.files import write_atomically
from selfemo_api.text.suggestions import did_you_mean
from selfemo_operator.cli.output_format import print_line
from selfemo_operator.cli.yaml_output import yaml_text
from selfemo_operator.local.state import RunnerError

#: The file that is written if none is named.
DEFAULT_FILE = "evolution.yaml"
#: The model of a file without ``--model``: a small one, from a Python package.
DEFAULT_MODEL = "package://smollm2?layers=16"
#: The labels of a file without ``--labels`` and ``--preset``: examples.
_LABELS = ("neutral", "joy", "anger", "sadness")
#: Where the schema for editors is written, relative to the file.
SCHEMA = Path(".selfemo") / "evolution.schema.json"
#: The endings of files of dialogues, the first of which is the default.
_ENDINGS = (".jsonl", ".csv", ".parquet", ".json", ".jsonl.gz", ".csv.gz")
#: A dataset on the hub, perhaps at a revision, and its options.
_HUB = re.compile(r"(hf://(?:datasets/)?[^/@?]+/[^/@?]+(?:@[^/?]+)?)/?(?:\?(.*))?")
_HUB_OPTIONS = frozenset({"split", "config", "revision"})
#: The parts of a dataset: the name, other names of its file, and what it is used for.
_PARTS = (
    ("train", ("train", "training"), "SelfPlay"),
    ("dev", ("dev", "val", "valid", "validation"), "Evaluation"),
    ("test", ("test",), "Evaluation"),
)


@dataclass(frozen=True)
class InitOptions:
    """What a person has said about the new evolution."""

    model: str | None = None
    """The URI of the model."""
    data: str | None = None
    """The folder, or the URI, of the dialogues."""
    preset: Preset | None = None
    """The published dataset."""
    labels: str | None = None
    """The label set, separated by commas."""
    recipe: str | None = None
    """The name of the recipe."""

    @property
    def given(self) -> bool:
        """Whether any option is given."""
        return any((self.model, self.data, self.preset, self.labels, self.recipe))


def init(file: str, options: InitOptions, *, as_json: bool) -> None:
    """Write the file, and print what to do next.

    Parameters
    ----------
    file
        The path of the file. ``-``: standard output.
    options
        What the person has said. If it is nothing and there is a terminal, the command asks.
    as_json
        Print a JSON object.

    Raises
    ------
    RunnerError
        If the file exists, or an option is not valid.
    """
    path = Path(file)
    if file != "-" and path.exists():
        raise RunnerError(f"{path} already exists: choose another file, or remove it")
    if not options.given and sys.stdin.isatty() and sys.stdout.isatty():
        options = ask()
    text, volume = evolution_text(options, name_of(path))
    if file == "-":
        sys.stdout.write(text)
        return
    _write(path, text)
    data = f" --data {shlex.quote(volume)}" if volume else ""
    if as_json:
        sys.stdout.write(json_text({"file": str(path), "data": volume}) + "\n")
        return
    print_line(f"Wrote {path}. Next:")
    quoted = shlex.quote(str(path))
    print_line(f"  selfemo check {quoted}{data}")
    print_line(f"  selfemo run {quoted}{data}")


def _write(path: Path, text: str) -> None:
    """Write the file, and the schema to which its first line points."""
    try:
        schema = path.parent / SCHEMA
        schema.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(schema, json.dumps(editor_schema(), ensure_ascii=False, indent=1))
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RunnerError(f"{path} already exists: choose another file, or remove it") from None
    except OSError as error:
        raise RunnerError(f"{path} cannot be written: {error.strerror}") from None


def ask() -> InitOptions:
    """Ask a person for the main settings. An empty answer means the default."""
    model = typer.prompt("Model (URI)", default=DEFAULT_MODEL)
    names = ", ".join(Preset)
    preset = typer.prompt(f"Published dataset ({names}; leave empty for your own)", default="")
    data = typer.prompt("Folder or URI of the dialogues", default="data")
    labels = "" if preset else typer.prompt("Labels", default=", ".join(_LABELS))
    return InitOptions(model, data, preset_of(preset) if preset else None, labels or None)


def preset_of(text: str) -> Preset:
    """Return the published dataset of a name. Raises RunnerError if there is none.

    Parameters
    ----------
    text
        The name. Upper and lower case are not distinguished.
    """
    match = next((preset for preset in Preset if preset.value.lower() == text.lower()), None)
    if match is None:
        hint = did_you_mean(text, Preset) or f"; available datasets: {', '.join(Preset)}"
        raise RunnerError(f"there is no published dataset `{text}`{hint}")
    return match


def name_of(path: Path) -> str:
    """Return a name for the evolution in a file.

    Parameters
    ----------
    path
        The path of the file.

    Examples
    --------
    >>> name_of(Path("My Run_2.yaml")), name_of(Path("-"))
    ('my-run-2', 'evolution')
    """
    name = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:36].strip("-")
    return name if name[:1].isalpha() else "evolution"


def evolution_text(options: InitOptions, name: str) -> tuple[str, str]:
    """Return the text of a file, and what ``--data`` needs; empty if it needs nothing.

    Parameters
    ----------
    options
        What the person has said.
    name
        The name of the evolution.

    Raises
    ------
    RunnerError
        If an option is not valid.
    """
    recipe = options.recipe or RECIPES[0]
    prefix, volume, folder = _place(options.data, options.preset)
    lines = [
        f"# yaml-language-server: $schema={SCHEMA.as_posix()}",
        "# An evolution: a model improves at recognizing emotions, generation by generation.",
        "# `selfemo validate --resolve` prints all settings with their values.",
        f"apiVersion: {API_VERSION}",
        f"kind: {KIND}",
        f"metadata: {{name: {_scalar(name)}}}",
        "spec:",
        f"  # The recipe sets all settings that this file omits: {', '.join(RECIPES)}.",
        f"  recipe: {_scalar(recipe)}",
        "  # hf://owner/name, s3://bucket/prefix, a folder (file:///…), or a Python package.",
        f"  model: {{uri: {_quoted(options.model or DEFAULT_MODEL)}}}",
        *_dataset_lines(options, prefix, folder),
        "  # A folder, or s3://bucket/prefix. `./` is the current working directory.",
        '  storage: {uri: "file://./results"}',
        "  stopping:",
        "    maxGenerations: 3    # after generation 0, the baseline of their gains",
    ]
    text = "\n".join(lines) + "\n"
    (evolution,) = load_evolutions("the new file", text)
    if isinstance(evolution, Exception):
        raise RunnerError(_without_lines(str(evolution)), ExitCode.BAD_INPUT)
    return text, volume


def _dataset_lines(options: InitOptions, prefix: str, folder: Path | None) -> list[str]:
    """Return the lines of ``spec.dataset``."""
    if options.preset is not None:
        published = PUBLISHED[options.preset]
        labeled = published.labeled if options.labels is None else 100
        lines = [
            f"  # The files of {options.preset.value}: {', '.join(published.files.values())}.",
            "  dataset:",
            f"    preset: {options.preset.value}",
            f"    uri: {_quoted(prefix)}",
        ]
        lines += [f"    labels: {_labels(options.labels)}"] if options.labels else []
        comment = "dialogues whose labels are used; the others' are not read"
        return [*lines, f"    labeledDialogues: {labeled}  # {comment}"]
    return [
        "  # Dialogues in JSON Lines, CSV, Parquet, or from the Hugging Face Hub.",
        "  dataset:",
        f"    labels: {_labels(options.labels)}",
        "    # The number of training dialogues whose labels are used. The others' are never read.",
        "    labeledDialogues: 100",
        "    # The first source with `use: Evaluation` decides which generation is promoted.",
        "    sources:",
        *(_source_line(name, uri, use) for name, uri, use in _sources(prefix, folder)),
    ]


def _source_line(name: str, uri: str, use: str) -> str:
    return f"      - {{name: {name}, use: {use}, uri: {_quoted(uri)}}}"


def _sources(prefix: str, folder: Path | None) -> list[tuple[str, str, str]]:
    """Return name, URI and use of each source. Files that a local folder lacks are left out."""
    if prefix.startswith("hf://"):
        splits = (("train", "train"), ("dev", "validation"), ("test", "test"))
        uses = {name: use for name, _, use in _PARTS}
        return [(name, hub_uri(prefix, split), uses[name]) for name, split in splits]
    sources = []
    for name, stems, use in _PARTS:
        file = _file_of(folder, stems)
        if file is not None or folder is None or name != "test":
            sources.append((name, f"{prefix}/{file or f'{name}{_ENDINGS[0]}'}", use))
    return sources


def hub_uri(uri: str, split: str) -> str:
    """Return the URI of a split of a dataset on the hub. Another split in the URI is replaced.

    Parameters
    ----------
    uri
        The URI of the dataset, perhaps with options.
    split
        The split.

    Raises
    ------
    RunnerError
        If the URI has a path below the dataset, or an option that there is not.

    Examples
    --------
    >>> hub_uri("hf://owner/name?split=test&config=en", "train")
    'hf://owner/name?config=en&split=train'
    """
    match = _HUB.fullmatch(uri)
    if match is None:
        raise RunnerError(
            f"--data {uri}: must be hf://owner/name, optionally with `?config=` or `?revision=`. "
            "To use individual files of a dataset, list them in `dataset.sources` of the new "
            "file"
        )
    options = match[2].split("&") if match[2] else []
    names = [name for name, _, value in (option.partition("=") for option in options) if value]
    if len(names) < len(options) or len({*names}) < len(names) or {*names} - _HUB_OPTIONS:
        raise RunnerError(
            f"--data {uri}: only `split`, `config` and `revision` are allowed after `?`, each once"
        )
    kept = [option for option in options if not option.startswith("split=")]
    return f"{match[1]}?{'&'.join([*kept, f'split={split}'])}"


def _file_of(folder: Path | None, stems: Sequence[str]) -> str | None:
    """Return the file of a part in a local folder; None if there is none."""
    if folder is None:
        return None
    names = [f"{stem}{ending}" for stem in stems for ending in _ENDINGS]
    return next((name for name in names if (folder / name).is_file()), None)


def _place(data: str | None, preset: Preset | None) -> tuple[str, str, Path | None]:
    """Return the URI of the dialogues, what ``--data`` needs, and the local folder."""
    if data is not None and "://" in data:
        return data.rstrip("/"), "", None
    default = preset.value.lower() if preset else "data"
    folder = Path(data or default)
    if folder.is_file():
        raise RunnerError(f"--data {data} is a file: specify the folder of the dialogues")
    volume = re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")[:40].strip("-")
    name = volume if volume[:1].isalpha() else "data"
    return f"data://{name}", f"{name}={folder}", folder if folder.is_dir() else None


def _labels(text: str | None) -> str:
    """Return a label set as YAML."""
    labels = [label.strip() for label in text.split(",")] if text else list(_LABELS)
    return _flow([label for label in labels if label])


def _flow(value: Any) -> str:
    """Return a list as YAML in one line."""
    return yaml_text([value], default_flow_style=True, width=100_000).strip()


def _scalar(text: str) -> str:
    """Return a text as a YAML scalar, which is quoted where it must be."""
    return _flow([text])[1:-1]


def _quoted(text: str) -> str:
    """Return a text as a quoted YAML scalar."""
    return json_text(text)


def _without_lines(text: str) -> str:
    """Return messages about the new file without its name and its lines: it is not written."""
    lines = (re.sub(r" \(line \d+\)$", "", line) for line in text.splitlines())
    return "\n".join(line.removeprefix("the new file: ") for line in lines)
