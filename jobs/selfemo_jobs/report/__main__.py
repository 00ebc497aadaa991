"""``python -m selfemo_jobs.report``: writes the page of a run, finished or under way."""

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
from selfemo_jobs.errors import BadInput, StageError
from selfemo_jobs.report.content import build_report
from selfemo_jobs.report.page import render
from selfemo_jobs.report.run_files import read_records, read_samples
from selfemo_jobs.store import join, open_store
from selfemo_jobs.store.local_files import replacing

Model = TypeVar("Model", bound=BaseModel)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m selfemo_jobs.report", description=__doc__)
    parser.add_argument("--run", required=True, help="<namespace>/<name>-<uid8>")
    parser.add_argument("--output", required=True, type=Path, help="the HTML file to write")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--evolution", type=Path, help="JSON of the EmotionEvolution: storage, goal and outcomes"
    )
    where.add_argument("--storage-uri", help="file:///folder or s3://bucket/prefix")
    parser.add_argument(
        "--spec", type=Path, help="JSON of the StorageSpec's options, with --storage-uri"
    )
    arguments = parser.parse_args(argv)
    try:
        write_report(arguments)
    except StageError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def write_report(arguments: argparse.Namespace) -> None:
    """Read the run and write the page, whole or not at all.

    Raises
    ------
    BadInput
        If there is no such run, or a file of it is broken.
    Unavailable
        If the storage stayed away.
    """
    evolution = _read(arguments.evolution, EmotionEvolution) if arguments.evolution else None
    storage = evolution.spec.storage if evolution else _storage(arguments)
    store = open_store(storage)
    run = join(storage.uri, arguments.run)
    records = read_records(store, run)
    if not records:
        raise BadInput(f"{run} holds no finished stage: check --run, or wait for the first stage")
    data = build_report(
        records, run=arguments.run, evolution=evolution, samples=read_samples(store, records)
    )
    with replacing(arguments.output.absolute()) as file:
        file.write(render(data).encode())


def _storage(arguments: argparse.Namespace) -> StorageSpec:
    try:
        if arguments.spec is None:
            return StorageSpec(uri=arguments.storage_uri)
        spec = _read(arguments.spec, StorageSpec)
        return StorageSpec.model_validate(spec.model_dump() | {"uri": arguments.storage_uri})
    except ValidationError as error:
        raise BadInput(f"--storage-uri {arguments.storage_uri}: {_first(error)}") from None


def _read(path: Path, kind: type[Model]) -> Model:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise BadInput(f"{path}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    field, message = first_problem(error)
    return f"{field or 'the file'}: {message}"


if __name__ == "__main__":
    sys.exit(main())
