"""The options of ``selfemo data``: sources of the command line, columns and labels."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from selfemo_api.contract import ENV_DATA
from selfemo_api.local_runs import absolute_uri
from selfemo_api.spec import DataFormat, StorageSpec
from selfemo_jobs.datasets.columns import PARTS
from selfemo_jobs.datasets.label_set import split_labels
from selfemo_jobs.datasets.reading import ReadOptions
from selfemo_jobs.errors import BadInput
from selfemo_jobs.store import Store, open_store

_SCHEME = re.compile(r"(?:file|data|s3|hf|package)://")


def source_uri(text: str) -> str:
    """Return the URI of a source that is a URI, or a path on this machine.

    In a path, blanks and per cent signs stand for themselves, and so do ``*`` and ``[`` if there is
    such a file. Otherwise they make a pattern.

    Parameters
    ----------
    text
        The source, as it is on the command line.

    Examples
    --------
    >>> source_uri("/data/my talks/part-*.csv")
    'file:///data/my%20talks/part-*.csv'
    """
    if _SCHEME.match(text):
        return absolute_uri(text)
    path = Path(text).expanduser()
    if path.exists():
        return path.absolute().as_uri()
    literal, *rest = re.split(r"(?=[*?\[])", str(path.absolute()), maxsplit=1)
    encoded = Path(literal).as_uri() + ("/" if literal.endswith("/") else "")
    return encoded + "".join(rest).replace("%", "%25").replace(" ", "%20")


def read_options(arguments: argparse.Namespace, *, read_labels: bool = True) -> ReadOptions:
    """Return what readers are to read.

    Parameters
    ----------
    arguments
        The parsed options of the command.
    read_labels
        Whether labels are read.

    Raises
    ------
    BadInput
        If an option is malformed.
    """
    labels = None
    if arguments.labels is not None:
        labels = split_labels(arguments.labels)
        if not labels:
            raise BadInput("--labels contains no label")
    columns = source_columns(arguments.columns)
    return ReadOptions(labels, read_labels, columns, _pairs("--label-map", arguments.label_map))


def source_columns(values: Sequence[str] | None) -> Mapping[str, str]:
    """Return the columns of the parts of a turn.

    Parameters
    ----------
    values
        The values of ``--columns``, each as ``PART=COLUMN,…``.

    Raises
    ------
    BadInput
        If a value is malformed, or a part is unknown.
    """
    columns = _pairs("--columns", values)
    unknown = sorted(columns.keys() - set(PARTS))
    if unknown:
        raise BadInput(f"--columns {unknown[0]}=…: the part must be one of {', '.join(PARTS)}")
    return columns


def data_format(arguments: argparse.Namespace) -> DataFormat | None:
    """Return the format that the options name, or None."""
    return DataFormat(arguments.format) if arguments.format else None


def set_data_volumes(volumes: Sequence[str] | None) -> None:
    """Name the folders of data volumes in the environment, as stages read them.

    Parameters
    ----------
    volumes
        The values of ``--data``, each as ``NAME=FOLDER``.

    Raises
    ------
    BadInput
        If a value is malformed, or its folder does not exist.
    """
    entries = [os.environ.get(ENV_DATA, "")]
    for text in volumes or ():
        name, sign, folder = text.partition("=")
        path = Path(folder).expanduser().absolute()
        if not sign or not name:
            raise BadInput(f"--data {text}: must be NAME=FOLDER, e.g. --data mine=data")
        if not path.is_dir():
            raise BadInput(f"--data {text}: {path} is not a folder")
        if ":" in str(path):  # it divides the volumes in the variable
            raise BadInput(
                f"--data {text}: {path} contains a colon: rename the folder, or use a symbolic "
                "link to it"
            )
        entries.append(f"{name}={path}")
    os.environ[ENV_DATA] = ":".join(filter(None, entries))


def environment_store(work: Path) -> Store:
    """Return a store for sources without a spec: S3 is as the environment describes it.

    Parameters
    ----------
    work
        The scratch folder.
    """
    return open_store(StorageSpec(uri=work.absolute().as_uri()))


def _pairs(option: str, values: Sequence[str] | None) -> Mapping[str, str]:
    """Return the pairs of an option. Raises BadInput."""
    pairs: dict[str, str] = {}
    for pair in (pair for value in values or () for pair in value.split(",") if pair.strip()):
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise BadInput(f"{option} {pair}: must be NAME=VALUE, with pairs separated by commas")
        if name.strip() in pairs:
            raise BadInput(f"{option}: `{name.strip()}` appears twice")
        pairs[name.strip()] = value.strip()
    return pairs
