"""Where the mounted data volumes are: ``data://volume/path`` to a path on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from selfemo_api.contract import ENV_DATA, ENV_DATA_ROOT
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.folder import file_path

#: Where pods mount data volumes unless told otherwise.
DEFAULT_ROOT = "/data"


def data_volumes(text: str) -> dict[str, Path]:
    """Return the folders by volume name out of ``name=/folder:name=/folder``.

    Raises
    ------
    BadInput
        If an entry is not ``name=/folder`` with an absolute folder.
    """
    volumes = {}
    for entry in filter(None, (part.strip() for part in text.split(":"))):
        name, equals, folder = entry.partition("=")
        if not (name and equals and Path(folder).is_absolute()):
            raise BadInput(f"{ENV_DATA}: `{entry}` must be `name=/folder` with an absolute folder")
        volumes[name] = Path(folder)
    return volumes


def resolve_data_uri(uri: str, environment: Mapping[str, str] | None = None) -> Path:
    """Return the path that a ``data://volume/path`` URI stands for.

    ``SELFEMO_DATA`` is looked up first, then the folder of the volume's name below
    ``SELFEMO_DATA_ROOT``. The path need not exist.

    Parameters
    ----------
    uri
        ``data://volume`` or ``data://volume/path``.
    environment
        Where the two variables are read; the process's own when None.

    Raises
    ------
    BadInput
        If the URI names no volume, or leads out of it.
    """
    env = os.environ if environment is None else environment
    scheme, _, rest = uri.partition("://")
    volume, _, below = rest.partition("/")
    if scheme != "data" or not volume:
        raise BadInput(f"{uri} must be data://volume/path")
    if ".." in below.split("/") or volume in {".", ".."}:
        raise BadInput(f"{uri} must not lead out of its volume (`..`)")
    folder = data_volumes(env.get(ENV_DATA, "")).get(volume)
    if folder is None:
        folder = Path(env.get(ENV_DATA_ROOT) or DEFAULT_ROOT) / volume
    return folder.joinpath(*(part for part in below.split("/") if part))


def local_path(uri: str) -> Path:
    """Return the path of a ``file://`` or ``data://`` URI.

    Raises
    ------
    BadInput
        If the URI is of another kind, or a ``file://`` URI holds no absolute path.
    """
    if uri.startswith("data://"):
        return resolve_data_uri(uri)
    return file_path(uri)
