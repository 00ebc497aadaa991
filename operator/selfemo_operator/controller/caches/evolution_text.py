"""Reads evolutions from the API server's text, with bounds on what a resource may cost. Pure.

Whoever may create an EmotionEvolution decides how large and how deeply nested it is, and a text of
1 MB can take 25 MB as Python objects. So the operator lists and watches the metadata alone, and
takes from it only the identity of each object. It reads the resource itself with a request of its
own, and looks at its size before it parses it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic_core import from_json

from selfemo_api.api_model import API_VERSION
from selfemo_operator.controller.objects.names import Key

Json = dict[str, Any]

#: The largest spec in bytes of JSON. A large one has 20 KiB. The spec of a generation is also in
#: the status and in an annotation of each stage's pod: the API server allows 256 KiB of
#: annotations, and etcd 1.5 MiB for the whole resource.
MAX_SPEC_BYTES = 128 * 2**10
#: The key under which a cached evolution that was not parsed has the reason.
REFUSED = "refused"
#: The media types of an object's metadata alone, in lists and in watch events.
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA_EVENT = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

#: The fields of the metadata that the operator reads.
_METADATA = (
    "name",
    "namespace",
    "uid",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
)
#: The API server writes these fields first, in this order. No text of a user can look like this:
#: the quotes in a string are escaped, and the names of fields in `managedFields` have a prefix.
_IDENTITY = re.compile(
    rb'"metadata":\{"name":"([^"\\]+)",(?:"generateName":"[^"\\]*",)?"namespace":"([^"\\]+)",'
    rb'"uid":"([^"\\]+)","resourceVersion":"([^"\\]+)"'
)
_FIRST_METADATA = re.compile(
    rb'"metadata":(\{"name":"[^"\\]+"(?:,"(?:generateName|namespace|selfLink|uid|resourceVersion|'
    rb'creationTimestamp|deletionTimestamp)":"[^"\\]*"|,"generation":[0-9]+)*)'
)
#: The end of the metadata of a whole resource. Its fields are sorted, and the uid is the last.
_SPEC = re.compile(rb'"uid":"[0-9a-f-]+"\},"spec":')
_EVENT = re.compile(rb'\{"type":"(ADDED|MODIFIED|DELETED)","object":\{')
_PAGE_METADATA = re.compile(rb'"metadata":(\{[^{}]*\}),"items":\[')
_ITEM_KIND = b'"kind":"PartialObjectMetadata"'
_MANAGED_BY = re.compile(rb'"managedBy":"([^"\\]*)"')
#: How many places are tried at which the status of a resource may begin.
_STATUS_TRIES = 16


class Identity(NamedTuple):
    """An evolution and its version."""

    key: Key
    uid: str
    version: str


def identities(page: bytes) -> tuple[list[Identity], str, str]:
    """Return the objects on a page of metadata, the version of the list, and the next page's token.

    Parameters
    ----------
    page
        The text of a list, as the API server returns it for :data:`METADATA_LIST`.

    Raises
    ------
    ValueError, KeyError
        If the text is not a list.

    Examples
    --------
    >>> item = {"metadata": {"name": "a", "namespace": "b", "uid": "c", "resourceVersion": "4"}}
    >>> import json
    >>> identities(json.dumps({"items": [item], "metadata": {"resourceVersion": "7"}}).encode())
    ([Identity(key=('b', 'a'), uid='c', version='4')], '7', '')
    """
    head = _PAGE_METADATA.search(page, 0, 4096)
    if head is not None:
        items = [_identity(match) for match in _IDENTITY.finditer(page, head.end())]
        if len(items) == page.count(_ITEM_KIND):
            metadata = from_json(head[1])
            return items, metadata["resourceVersion"], metadata.get("continue", "")
    document = from_json(page)
    metadata = document["metadata"]
    items = [_identity_of(item["metadata"]) for item in document.get("items") or ()]
    return items, metadata["resourceVersion"], metadata.get("continue", "")


def parse_event(line: bytes) -> Json:
    """Return a watch event with the identity of its object alone.

    Parameters
    ----------
    line
        A line of a watch, as the API server sends it for :data:`METADATA_EVENT`.

    Raises
    ------
    ValueError
        If the line is not JSON.
    """
    kind, match = _EVENT.match(line), _IDENTITY.search(line, 0, 4096)
    if kind is None or match is None:
        event: Json = from_json(line)  # a bookmark, or an error
        return event
    return {"type": kind[1].decode(), "object": identity_object(_identity(match))}


def identity_in(item: Json) -> Identity:
    """Return the identity of an object with metadata.

    >>> identity_in(identity_object(Identity(("team", "demo"), "c0ffee", "7"))).version
    '7'
    """
    return _identity_of(item["metadata"])


def identity_object(item: Identity) -> Json:
    """Return an evolution with nothing but its identity.

    >>> identity_object(Identity(("team", "demo"), "c0ffee", "7"))["metadata"]["resourceVersion"]
    '7'
    """
    (namespace, name), uid, version = item
    return {
        "apiVersion": API_VERSION,
        "kind": "EmotionEvolution",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": version},
    }


def parse_evolution(text: bytes, read_metadata: Callable[[], bytes]) -> Json:
    """Return an evolution with the fields that the operator reads.

    A resource whose spec is too large, or nested too deeply, is not parsed: it has no `spec`, and
    :data:`REFUSED` holds the reason.

    Parameters
    ----------
    text
        The resource, as the API server returns it.
    read_metadata
        A function that returns its metadata, as the API server returns it for
        :data:`METADATA_EVENT`. It is called for a resource that is not parsed.

    Raises
    ------
    ValueError
        If the text is not a resource.
    """
    if len(text) > MAX_SPEC_BYTES:
        status_start, status = _status(text)
        size = status_start - _spec_start(text)
        if size > MAX_SPEC_BYTES:
            reason = f"spec: it has {size} bytes of JSON, and at most {MAX_SPEC_BYTES} are read"
            return _refused(text, _first_metadata(read_metadata()), status, reason)
    try:
        document: Json = from_json(text)
    except ValueError as error:
        if "recursion" not in str(error):
            raise
        reason = "spec: it is nested too deeply to be read"
        return _refused(text, _first_metadata(read_metadata()), _status(text)[1], reason)
    document["metadata"] = _slim(document["metadata"])
    return document


def _first_metadata(text: bytes) -> Json:
    """Return the first fields of an object's metadata, without those that a user writes."""
    match = _FIRST_METADATA.search(text, 0, 4096)
    if match is None:
        return _slim(from_json(text)["metadata"])
    metadata: Json = from_json(match[1] + b"}")
    return _slim(metadata)


def _identity(match: re.Match[bytes]) -> Identity:
    name, namespace, uid, version = (group.decode() for group in match.groups())
    return Identity((namespace, name), uid, version)


def _identity_of(metadata: Json) -> Identity:
    key = metadata["namespace"], metadata["name"]
    return Identity(key, metadata.get("uid", ""), metadata["resourceVersion"])


def _refused(text: bytes, metadata: Json, status: Json | None, reason: str) -> Json:
    document: Json = {
        "apiVersion": API_VERSION,
        "kind": "EmotionEvolution",
        "metadata": metadata,
        REFUSED: f"{reason}; shorten the spec, or delete the evolution",
    }
    managed_by = _MANAGED_BY.search(text)
    if managed_by is not None:
        document["managedBy"] = managed_by[1].decode()
    return document if status is None else {**document, "status": status}


def _slim(metadata: Json) -> Json:
    return {name: metadata[name] for name in _METADATA if name in metadata}


def _spec_start(text: bytes) -> int:
    """Return where the spec begins: after the metadata, whose last field is the uid.

    The API server sorts the fields of a custom resource by name.
    """
    match = _SPEC.search(text)
    return match.end() if match is not None else 0


def _status(text: bytes) -> tuple[int, Json | None]:
    """Return where the status of a resource begins, and the status. It is the last field.

    The same text can be in the spec; but only from the right place on does the rest of the resource
    close all its brackets.
    """
    end = len(text)
    for _ in range(_STATUS_TRIES):
        start = text.rfind(b',"status":{', 0, end)
        if start < 0:
            break
        try:
            status: Json = from_json(b"{" + text[start + 1 :])["status"]
        except ValueError:
            end = start
            continue
        return start, status
    return len(text.rstrip()) - 1, None  # before the last bracket
