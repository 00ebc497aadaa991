"""``python -m selfemo_jobs.report``: writes the report of a run, finished or not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from selfemo_api.api_model import first_problem
from selfemo_api.contract import ExitCode
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.spec import StorageSpec
from selfemo_api.text.control_characters import printable
from selfemo_jobs.errors import BadInput, StageError
from selfemo_jobs.report.run_info import RunInfo, info_of_evolution
from selfemo_jobs.report.write import report_page
from selfemo_jobs.store import join, open_store
from selfemo_jobs.store.local_files import replacing

Model = TypeVar("Model", bound=BaseModel)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and return the exit code.

    Parameters
    ----------
    argv
        The arguments of the command. None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m selfemo_jobs.report", description=__doc__)
    parser.add_argument("--run", required=True, help="the run, <namespace>/<name>-<uid8>")
    parser.add_argument("--output", required=True, type=Path, help="the HTML file to write")
    origin = parser.add_mutually_exclusive_group(required=True)
    origin.add_argument(
        "--evolution",
        type=Path,
        help="the EmotionEvolution in JSON, with storage, goal and outcomes",
    )
    origin.add_argument("--storage-uri", help="the storage, file:///folder or s3://bucket/prefix")
    parser.add_argument(
        "--spec", type=Path, help="the options of the storage in JSON, with --storage-uri"
    )
    arguments = parser.parse_args(argv)
    try:
        write_report(arguments)
    except StageError as error:
        sys.stderr.write(printable(" ".join(str(error).split())) + "\n")
        return error.exit_code
    return ExitCode.OK


def write_report(arguments: argparse.Namespace) -> None:
    """Read the run and write the page, whole or not at all.

    Parameters
    ----------
    arguments
        The arguments of the command.

    Raises
    ------
    BadInput
        If there is no such run, or one of its files is damaged.
    Unavailable
        If the storage does not respond.
    """
    evolution = _read(arguments.evolution, EmotionEvolution) if arguments.evolution else None
    storage = evolution.spec.storage if evolution else _storage(arguments)
    name = arguments.run
    info = info_of_evolution(evolution, name) if evolution else RunInfo(name)
    page = report_page(open_store(storage), join(storage.uri, name), info)
    with replacing(arguments.output.absolute()) as file:
        file.write(page)


def _storage(arguments: argparse.Namespace) -> StorageSpec:
    """Return the storage that --storage-uri and --spec describe. Raises BadInput."""
    try:
        if arguments.spec is None:
            return StorageSpec(uri=arguments.storage_uri)
        spec = _read(arguments.spec, StorageSpec)
        return StorageSpec.model_validate(spec.model_dump() | {"uri": arguments.storage_uri})
    except ValidationError as error:
        raise BadInput(f"--storage-uri {arguments.storage_uri}: {_problem(error)}") from None


def _read(path: Path, kind: type[Model]) -> Model:
    """Return the object in a JSON file. Raises BadInput."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise BadInput(f"{path}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """Return field and message of the first problem."""
    field, message = first_problem(error)
    return f"{field or 'the file'}: {message}"


if __name__ == "__main__":
    sys.exit(main())
