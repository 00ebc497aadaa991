"""Runs on one machine: their uid, the file with their state, URIs relative to the current folder.

A cluster has none of them: there the API server assigns the uid and stores the state.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from selfemo_api.spec import EvolutionSpec

#: The file of a state folder with the evolution and its status.
STATE_FILE = "evolution.json"
#: The prefix of a URI relative to the current folder.
_RELATIVE = "file://./"


def local_uid(namespace: str, name: str) -> str:
    """Return the uid of a run on one machine: the same name has the same uid everywhere.

    Parameters
    ----------
    namespace, name
        The namespace and the name of the evolution.

    Returns
    -------
    str
        Eight hexadecimal digits.

    Examples
    --------
    >>> local_uid("default", "demo")
    '02c8c86b'
    """
    return hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:8]


def absolute_uri(uri: str) -> str:
    """Return a URI in which the current folder replaces the prefix ``file://./``.

    Parameters
    ----------
    uri
        The URI. Another text is returned as it is.

    Examples
    --------
    >>> absolute_uri("s3://bucket/runs")
    's3://bucket/runs'
    """
    if not uri.startswith(_RELATIVE):
        return uri
    return f"{Path.cwd().as_uri()}/{uri.removeprefix(_RELATIVE)}"


def absolute_spec(spec: EvolutionSpec) -> EvolutionSpec:
    """Return a spec in which URIs relative to the current folder are absolute.

    Stages may run in another folder.

    Parameters
    ----------
    spec
        The resolved spec.
    """

    def make_absolute(value: Any) -> Any:
        if isinstance(value, str):
            return absolute_uri(value)
        if isinstance(value, dict):
            return {key: make_absolute(item) for key, item in value.items()}
        return [make_absolute(item) for item in value] if isinstance(value, list) else value

    return EvolutionSpec.model_validate(make_absolute(spec.to_json()))
