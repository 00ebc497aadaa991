"""Lists in pages: a page that is too large is requested again with fewer objects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selfemo_operator.controller.kube import pages
from selfemo_operator.controller.kube.client import ApiError, ResponseTooLarge
from selfemo_operator.controller.kube.pages import decode_page, list_objects

Json = dict[str, Any]


class Server:
    """A server with objects of given sizes."""

    def __init__(self, sizes: list[int]) -> None:
        self.items = [
            {"metadata": {"namespace": "n", "name": str(i)}, "spec": "x" * size}
            for i, size in enumerate(sizes)
        ]
        self.requests: list[tuple[int, int]] = []

    def get_text(self, path: str, query: Json, accept: str, max_bytes: int | None) -> bytes:
        first, limit = int(query.get("continue", 0)), int(query["limit"])
        self.requests.append((first, limit))
        chunk = self.items[first : first + limit]
        more = str(first + limit) if first + limit < len(self.items) else ""
        metadata = {"resourceVersion": "7", "continue": more}
        text = json.dumps({"items": chunk, "metadata": metadata}).encode()
        if max_bytes is not None and len(text) > max_bytes:
            raise ResponseTooLarge(path, max_bytes)
        return text


def listed(server: Server) -> list[Json]:
    items: list[Json] = []
    keys, version = list_objects(items.append, server, "/x", {})  # type: ignore[arg-type]
    assert version == "7"
    assert len(keys) == len(items)
    return items


def test_small_objects_come_in_large_pages() -> None:
    server = Server([100] * 600)
    assert listed(server) == server.items
    assert server.requests == [(0, 250), (250, 250), (500, 250)]


def test_large_objects_come_in_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_PAGE_BYTES", 40_000)
    monkeypatch.setattr(pages, "_WHOLE_PAGE_BYTES", 5_000)
    server = Server([15_000] * 10 + [50_000] + [10] * 100)
    assert listed(server) == server.items
    assert len(server.requests) < 30
    assert all(limit >= 1 for _, limit in server.requests)


@pytest.mark.parametrize("bound", [0, 10**9], ids=["one by one", "at once"])
def test_both_ways_of_decoding_agree(monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    monkeypatch.setattr(pages, "_WHOLE_PAGE_BYTES", bound)
    for page in (
        {"items": [], "metadata": {}},
        {
            "kind": "List",
            "items": [{"a": "\u00e9\U0001f600"}, {"b": [1, {}]}],
            "metadata": {"x": 1},
        },
        {"metadata": {"items": [1]}, "items": [{"items": []}]},
    ):
        for text in (json.dumps(page), json.dumps(page, indent=2, ensure_ascii=False)):
            items: list[Json] = []
            rest = decode_page(text.encode(), items.append)
            assert {**rest, "items": items} == page


def test_a_response_that_is_not_a_list_is_an_error() -> None:
    class Html:
        def get_text(self, *_: Any) -> bytes:
            return b"<html>"

    with pytest.raises(ApiError, match="the list cannot be read"):
        list_objects(print, Html(), "/x", {})  # type: ignore[arg-type]
