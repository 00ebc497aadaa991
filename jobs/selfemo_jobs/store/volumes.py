"""Data volumes: the local path of a ``data://volume/path`` URI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from selfemo_api.contract import ENV_DATA, ENV_DATA_ROOT
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store.folder import file_path, possible_path

#: The folder in which pods mount data volumes by default.
DEFAULT_ROOT = "/data"


def data_volumes(text: str) -> dict[str, Path]:
    """Return the folder of each data volume.

    Parameters
    ----------
    text
        The value of ``SELFEMO_DATA``: ``name=/folder:name=/folder``.

    Raises
    ------
    BadInput
        If an entry is not ``name=/folder`` with an absolute folder.

    Examples
    --------
    >>> data_volumes("meld=/data/meld:models=/models")["models"]
    PosixPath('/models')
    """
    volumes = {}
    for entry in filter(None, (part.strip() for part in text.split(":"))):
        name, equals, folder = entry.partition("=")
        if not (name and equals and Path(folder).is_absolute()):
            raise BadInput(f"{ENV_DATA}: `{entry}` must be `name=/folder` with an absolute folder")
        volumes[name] = Path(folder)
    return volumes


def resolve_data_uri(uri: str, environment: Mapping[str, str] | None = None) -> Path:
    """Return the local path of a ``data://volume/path`` URI. The path need not exist.

    The volume is looked up in ``SELFEMO_DATA``. If it is not there, it is the folder of that name
    below ``SELFEMO_DATA_ROOT``.

    Parameters
    ----------
    uri
        ``data://volume`` or ``data://volume/path``. The path is percent-decoded, as that of a
        ``file://`` URI.
    environment
        The environment variables. None: those of the process.

    Raises
    ------
    BadInput
        If the URI does not name a volume, or the path leads out of it.

    Examples
    --------
    >>> resolve_data_uri("data://meld/dev.csv", {"SELFEMO_DATA": "meld=/corpora/meld"})
    PosixPath('/corpora/meld/dev.csv')
    >>> resolve_data_uri("data://meld/my%20dev.csv", {"SELFEMO_DATA": "meld=/corpora/meld"})
    PosixPath('/corpora/meld/my dev.csv')
    """
    env = os.environ if environment is None else environment
    scheme, _, rest = uri.partition("://")
    volume, _, encoded = rest.partition("/")
    below = unquote(encoded, errors="surrogateescape")
    if scheme != "data" or not volume:
        raise BadInput(f"{uri} must be data://volume/path")
    if ".." in below.split("/") or volume in {".", ".."}:
        raise BadInput(f"{uri} must not point outside its volume (`..`)")
    folder = data_volumes(env.get(ENV_DATA, "")).get(volume)
    if folder is None:
        folder = Path(env.get(ENV_DATA_ROOT) or DEFAULT_ROOT) / volume
    path = folder.joinpath(*(part for part in below.split("/") if part))
    return possible_path(str(path), uri)


def local_path(uri: str) -> Path:
    """Return the local path of a ``file://`` or ``data://`` URI.

    Raises
    ------
    BadInput
        If it is another kind of URI, or the path is not valid.
    """
    if uri.startswith("data://"):
        return resolve_data_uri(uri)
    return file_path(uri)
