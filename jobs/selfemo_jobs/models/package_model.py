"""Models in Python packages: ``package://smollm2?layers=6``.

Such a model is made once, below the scratch folder that all stages of a run share. This module
needs no torch where the model is there already.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selfemo_api.os_errors import NO_LOCKS
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.model_folder import model_hashes
from selfemo_jobs.models.package_files import SMOLLM2_FILE, SMOLLM2_LAYERS
from selfemo_jobs.store.local_files import translated_errors, write_file

log = logging.getLogger(__name__)

SCHEME = "package://"
_URI = re.compile(r"package://smollm2(\?layers=(?P<layers>[0-9]{1,3}))?")


@dataclass(frozen=True)
class PackageModel:
    """The model that a URI names."""

    layers: int
    """The number of layers to keep, from the first."""

    @property
    def folder(self) -> str:
        """The name of the model's folder: the package's version and the layers decide it."""
        return f"smollm2-{SMOLLM2_FILE.version}-{self.layers}l"


def parse_package_uri(uri: str) -> PackageModel:
    """Return the model that a URI names.

    Parameters
    ----------
    uri
        The URI, with the scheme ``package``.

    Raises
    ------
    BadInput
        If there is no such model.

    Examples
    --------
    >>> parse_package_uri("package://smollm2?layers=6").folder
    'smollm2-0.1.2-6l'
    """
    match = _URI.fullmatch(uri)
    layers = int(match["layers"] or SMOLLM2_LAYERS) if match else 0
    if not 1 <= layers <= SMOLLM2_LAYERS:
        raise BadInput(
            f"{uri}: there is no such model: it must be package://smollm2, or "
            f"package://smollm2?layers=N with N from 1 to {SMOLLM2_LAYERS}"
        )
    return PackageModel(layers)


def fetch_package_model(uri: str, folder: Path) -> Path:
    """Return the folder of a package's model. It is made where it does not exist.

    The SHA-256 of each of its files is stored beside it. A model whose files differ from them is
    made again.

    Parameters
    ----------
    uri
        The URI, with the scheme ``package``.
    folder
        The folder in which the models of packages are kept.

    Raises
    ------
    BadInput
        If there is no such model, or the given file of the package is another one.
    Unavailable
        If the package cannot be downloaded.
    """
    model = parse_package_uri(uri)
    path = folder / model.folder
    hashes = folder / f"{model.folder}.json"
    with translated_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{model.folder}.lock"):
            if not _is_whole(path, hashes):
                from selfemo_jobs.models.smollm2 import prepare_smollm2

                log.info("creates the base model", extra={"fields": {"uri": uri}})
                hashes.unlink(missing_ok=True)
                prepare_smollm2(path, model.layers)
                write_file(hashes, json.dumps(model_hashes(path), sort_keys=True).encode())
    return path


def _is_whole(path: Path, hashes: Path) -> bool:
    """Return whether a model's files are those that were made."""
    try:
        return bool(json.loads(hashes.read_bytes()) == model_hashes(path))
    except (FileNotFoundError, ValueError):
        return False


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Return a context that one process at a time enters: several stages may need the model."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise BadInput(
                f"{file}: this file system does not support file locks (flock): set SELFEMO_WORK "
                "to a folder on another file system"
            ) from error
        yield
