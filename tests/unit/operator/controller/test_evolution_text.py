"""Evolutions are read from the text with bounds on their size and depth."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selfemo_operator.controller.caches.evolution_text import (
    MAX_SPEC_BYTES,
    REFUSED,
    Identity,
    identities,
    identity_object,
    parse_event,
    parse_evolution,
)

Json = dict[str, Any]
METADATA = (
    b'{"name":"demo","namespace":"team","uid":"0123-45","resourceVersion":"7","generation":3,'
    b'"creationTimestamp":"2026-01-01T00:00:00Z"'
)
DEEP = b'{"f:a":' * 5000 + b"{}" + b"}" * 5000
#: The metadata as the API server writes it, with fields that a user decides.
PARTIAL = (
    b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":'
    + METADATA
    + b',"labels":{"uid":"x","name":"y"},"annotations":{"a":"\\"metadata\\":{\\"name\\":\\"z\\"'
    + b'"},"managedFields":[{"fieldsV1":'
    + DEEP
    + b"}]}}"
)
IDENTITY = Identity(("team", "demo"), "0123-45", "7")


def resource(arguments: bytes, status: bytes = b"") -> bytes:
    """Return a resource as the API server writes it: its fields are sorted by name."""
    return (
        b'{"apiVersion":"selfemo.dev/v1alpha1","kind":"EmotionEvolution","metadata":'
        b'{"labels":{"name":"wrong","uid":"wrong"},"name":"demo","namespace":"team",'
        b'"resourceVersion":"7","uid":"0123-45"},"spec":{"engineArgs":'
        + arguments
        + b"}"
        + (b',"status":' + status if status else b"")
        + b"}\n"
    )


def parse(text: bytes) -> Json:
    return parse_evolution(text, lambda: PARTIAL)


def test_the_identity_is_read_without_the_fields_of_the_user() -> None:
    page = (
        b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1",'
        b'"metadata":{"resourceVersion":"9","continue":"x"},"items":['
        + PARTIAL
        + b","
        + PARTIAL.replace(b"demo", b"two")
        + b"]}"
    )
    second = Identity(("team", "two"), "0123-45", "7")
    assert identities(page) == ([IDENTITY, second], "9", "x")
    event = parse_event(b'{"type":"MODIFIED","object":' + PARTIAL + b"}")
    assert event == {"type": "MODIFIED", "object": identity_object(IDENTITY)}
    metadata = {"name": "demo", "namespace": "team", "uid": "0123-45", "resourceVersion": "7"}
    assert event["object"]["metadata"] == metadata
    bookmark = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12"}}}'
    assert parse_event(bookmark)["object"]["metadata"]["resourceVersion"] == "12"


def test_an_empty_list_and_another_order_of_fields_are_read() -> None:
    assert identities(b'{"items":null,"metadata":{"resourceVersion":"9"}}') == ([], "9", "")
    item = {"metadata": {"uid": "u", "resourceVersion": "4", "namespace": "n", "name": "a"}}
    page = json.dumps({"metadata": {"resourceVersion": "9"}, "items": [item]}).encode()
    assert identities(page) == ([Identity(("n", "a"), "u", "4")], "9", "")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (b'{"x":"' + b"y" * MAX_SPEC_BYTES + b'"}', "spec: it has 131095 bytes of JSON"),
        (DEEP, "spec: it is nested too deeply"),
        (b'{"x":["' + b"y" * MAX_SPEC_BYTES + b'"],"z":{"a":1,"status":{}}}', "spec: it has"),
    ],
    ids=["large", "deep", "with a status in the spec"],
)
@pytest.mark.parametrize("status", [b"", b'{"phase":"Failed","current":{"a":1,"status":{}}}'])
def test_a_hostile_spec_is_not_parsed(arguments: bytes, reason: str, status: bytes) -> None:
    item = parse(resource(arguments, status))
    assert "spec" not in item
    assert item[REFUSED].startswith(reason)
    assert item["metadata"]["name"] == "demo"
    assert item["metadata"]["generation"] == 3
    assert item.get("status") == (json.loads(status) if status else None)


def test_the_message_does_not_depend_on_the_status() -> None:
    """Otherwise each write of the status would cause another one."""
    arguments = b'{"x":"' + b"y" * MAX_SPEC_BYTES + b'"}'
    messages = {parse(resource(arguments, s))[REFUSED] for s in (b"", b'{"phase":"Failed"}')}
    assert len(messages) == 1


def test_a_spec_of_the_largest_size_is_parsed_with_any_status() -> None:
    frame = len(b'{"engineArgs":{"x":""}}')
    arguments = b'{"x":"' + b"y" * (MAX_SPEC_BYTES - frame) + b'"}'
    item = parse(resource(arguments, b'{"current":{"spec":' + arguments + b"}}"))
    assert REFUSED not in item
    assert len(item["spec"]["engineArgs"]["x"]) == MAX_SPEC_BYTES - frame
    assert "labels" not in item["metadata"], "only what the operator reads is kept"


def test_text_that_is_not_a_resource_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(b"<html>")
