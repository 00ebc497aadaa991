"""Lists in pages, with a bound on the memory that a page takes.

A page is as large as its objects are: 250 objects of the largest size that etcd stores would take
400 MB as text, and many times as much as Python objects. So a page that is too large is requested
again with fewer objects, and the objects of a large page are parsed one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from selfemo_operator.controller.kube.client import ApiError, KubeClient, ResponseTooLarge

Json = dict[str, Any]

#: The most objects on one page of a list. A resync of 5000 Jobs takes 20 requests.
PAGE_SIZE = 250
#: The largest page in bytes, if it has several objects. 250 usual Jobs take 2 MB.
MAX_PAGE_BYTES = 4 * 2**20
#: The largest page that is parsed at once. As Python objects it takes up to 25 times as much.
_WHOLE_PAGE_BYTES = 512 * 2**10
#: By how much the number of objects falls after a page that was too large.
_SHRINK = 4

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


def read_pages(
    read: Callable[[bytes], tuple[str, str]],
    kube: KubeClient,
    path: str,
    query: dict[str, str],
    accept: str = "application/json",
) -> str:
    """Call a function with the text of each page of a list; return the version of the list.

    Parameters
    ----------
    read
        The function that is called with each page. It returns the resource version of the page, and
        the token of the next page; empty: it was the last one.
    kube
        The client of the API server.
    path
        The path of the list.
    query
        The query of the list, such as a label selector.
    accept
        The media type of the list.

    Raises
    ------
    ApiError
        If a page cannot be read.
    """
    version, token, limit = "", "", PAGE_SIZE
    while True:
        page = {**query, "limit": str(limit), **({"continue": token} if token else {})}
        try:
            bound = MAX_PAGE_BYTES if limit > 1 else None
            text = kube.get_text(path, page, accept, bound)
        except ResponseTooLarge:
            limit = max(1, limit // _SHRINK)
            continue
        try:
            page_version, token = read(text)
        except (ValueError, KeyError, RecursionError) as error:
            message = f"GET {path}: the list cannot be read: {type(error).__name__}: {error}"
            raise ApiError(0, "Response", message) from error
        version = version or page_version  # that of the first page
        if not token:
            return version
        if len(text) * 2 < MAX_PAGE_BYTES:
            limit = min(PAGE_SIZE, limit * 2)


def list_objects(
    handle: Callable[[Json], object], kube: KubeClient, path: str, query: dict[str, str]
) -> tuple[set[tuple[str, str]], str]:
    """Call a function with each object of a list; return the objects' keys and the list's version.

    The objects are not kept: thousands of Jobs with their pod templates would take most of the
    operator's memory. The version is that of the first page.

    Parameters
    ----------
    handle
        The function that is called with each object.
    kube
        The client of the API server.
    path
        The path of the list.
    query
        The query of the list, such as a label selector.

    Raises
    ------
    ApiError
        If a page cannot be read.
    """
    keys: set[tuple[str, str]] = set()

    def handle_item(item: Json) -> None:
        keys.add((item["metadata"]["namespace"], item["metadata"]["name"]))
        handle(item)

    def read(text: bytes) -> tuple[str, str]:
        metadata = decode_page(text, handle_item)["metadata"]
        return metadata["resourceVersion"], metadata.get("continue", "")

    return keys, read_pages(read, kube, path, query)


def decode_page(text: bytes, handle: Callable[[Json], None]) -> Json:
    """Call a function with each object of a page; return the other fields of the page.

    >>> items = []
    >>> decode_page(b'{"items": [{"name": "a"}], "kind": "List"}', items.append)
    {'kind': 'List'}
    >>> items
    [{'name': 'a'}]
    """
    if len(text) <= _WHOLE_PAGE_BYTES:
        page: Json = from_json(text)
        for item in page.pop("items", None) or ():
            handle(item)
        return page
    return _decode_one_by_one(text.decode(), handle)


def _decode_one_by_one(text: str, handle: Callable[[Json], None]) -> Json:
    """Decode a page as :func:`decode_page` does, with one object in memory at a time."""
    page: Json = {}
    at = _skip(text, 0, "{")
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at, ":")
        if key == "items" and text[at] == "[":
            at = _skip(text, at, "[")
            while text[at] != "]":
                item, at = _DECODER.raw_decode(text, at)
                handle(item)
                at = _skip(text, at, ",")
            at = _skip(text, at, "]")
        else:
            page[key], at = _DECODER.raw_decode(text, at)
        at = _skip(text, at, ",")
    return page


def _skip(text: str, at: int, separator: str) -> int:
    """Return the position after white space, one optional separator, and white space."""
    while text[at] in _SPACE:
        at += 1
    if text[at] == separator:
        at += 1
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at
