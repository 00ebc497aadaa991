"""Runs that a person names: a YAML file, the folder of a run, or a state folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.local_runs import STATE_FILE, absolute_spec
from selfemo_api.schema.validation import load_evolution
from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.best_manifest import BEST_PATH, best_uri, read_best_manifest
from selfemo_jobs.models.evolution_reference import (
    read_state,
    run_folder,
    stored_evolution,
)
from selfemo_jobs.report.run_info import RunInfo, info_of_evolution
from selfemo_jobs.runtime.run_reader import REPORT_FILE
from selfemo_jobs.store import Store, join, open_store

_YAML = re.compile(r".+\.ya?ml")
#: Ends of URIs of a run's own files, which stand for the run.
_RUN_FILES = (f"/{REPORT_FILE}", f"/{BEST_PATH}", "/best")


@dataclass(frozen=True)
class RunPlace:
    """Where a run is, and what is known about it besides its manifests."""

    store: Store
    uri: str
    """The URI of the run's folder."""
    info: RunInfo


def find_run(reference: str, *, state: Path, storage: StorageSpec | None = None) -> RunPlace:
    """Return the run that a person names.

    Parameters
    ----------
    reference
        The YAML file of an evolution, the folder of a run as a path or URI, or the state folder of
        a run on this machine.
    state
        The folder in which `selfemo run` stores the state of evolutions.
    storage
        How ``s3://`` URIs of runs are read. None: as the environment says.

    Raises
    ------
    BadInput
        If the reference names no run.
    InvalidEvolution
        If the YAML file is not valid.
    Unavailable
        If the storage cannot be reached.
    """
    path = Path(reference).expanduser()
    if "://" not in reference:
        if _YAML.fullmatch(reference) and not path.is_dir():
            return _of_file(path, state)
        if (path / STATE_FILE).is_file():
            return _of_state(path / STATE_FILE)
        if not path.exists():
            raise BadInput(f"{reference} does not exist")
        reference = path.absolute().as_uri()
    return _of_folder(reference, storage)


def _of_file(file: Path, state: Path) -> RunPlace:
    """Return the run of an evolution's YAML file."""
    requested = load_evolution(file)
    evolution = stored_evolution(requested, state) or requested
    spec = absolute_spec(evolution.spec)
    store = open_store(spec.storage)
    run = run_folder(file, evolution, store)
    return _of_evolution(evolution.model_copy(update={"spec": spec}), run)


def _of_state(file: Path) -> RunPlace:
    """Return the run of a state folder. Raises BadInput."""
    evolution = read_state(file)
    if evolution is None:
        raise BadInput(f"{file} does not exist: give the YAML file of the evolution")
    return _of_evolution(evolution, evolution.run)


def _of_evolution(evolution: EmotionEvolution, run: str) -> RunPlace:
    storage = evolution.spec.storage
    return RunPlace(open_store(storage), join(storage.uri, run), info_of_evolution(evolution, run))


def _of_folder(uri: str, storage: StorageSpec | None) -> RunPlace:
    """Return the run in a folder of the storage. Raises BadInput."""
    if not uri.startswith(("file://", "s3://")):
        raise BadInput(
            f"{uri} is not a run: give the YAML file of an evolution, the folder of a run "
            "(file:// or s3://), or a state folder"
        )
    uri = uri.rstrip("/")
    for end in _RUN_FILES:
        uri = uri.removesuffix(end)
    root, *names = uri.rsplit("/", 2)
    try:
        spec = StorageSpec(uri=root) if "://" in root else None
    except ValidationError:
        spec = None
    if spec is None or len(names) < 2:
        raise BadInput(f"{uri} is not the folder of a run: it ends with <namespace>/<name>-<uid8>")
    store = open_store(storage.model_copy(update={"uri": root}) if storage else spec)
    best = None
    if store.exists(best_uri(uri)):
        best = read_best_manifest(store, best_uri(uri))[0].generation
    return RunPlace(store, uri, RunInfo("/".join(names), best=best))
