"""What the proxy knows of a request, and what it may do instead of forwarding it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Request:
    """One request of the operator.

    Attributes
    ----------
    write
        The number of the write, from 0; None: it is not a write, or it is about the Lease.
    """

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    write: int | None = None
    body: bytes | None = None

    @property
    def parts(self) -> list[str]:
        """The words of the path after the version of the API."""
        words = self.path.strip("/").split("/")
        return words[3:] if words[0] == "apis" else words[2:]

    @property
    def namespace(self) -> str:
        """The namespace, or an empty text."""
        parts = self.parts
        return parts[1] if len(parts) > 2 and parts[0] == "namespaces" else ""

    @property
    def resource(self) -> str:
        """The plural of the resource, such as `jobs`."""
        parts = self.parts
        below = parts[2:] if len(parts) > 2 and parts[0] == "namespaces" else parts
        return below[0] if below else ""

    @property
    def name(self) -> str:
        """The name of the object, or an empty text for a list."""
        parts = self.parts
        below = parts[2:] if len(parts) > 2 and parts[0] == "namespaces" else parts
        return below[1] if len(below) > 1 else ""

    @property
    def is_watch(self) -> bool:
        """Whether it is a watch."""
        return "watch" in self.query

    @property
    def is_list(self) -> bool:
        """Whether it is a list."""
        return self.method == "GET" and not self.is_watch and not self.name

    @property
    def is_about_lease(self) -> bool:
        """Whether it is about the Lease of the leader election."""
        return self.resource == "leases"


def parse(method: str, target: str, body: bytes | None) -> Request:
    """Return the request for a method and a target."""
    path, _, query = target.partition("?")
    return Request(method, path, dict(parse_qsl(query, keep_blank_values=True)), None, body)


@dataclass(frozen=True)
class Reply:
    """A response that the proxy makes itself."""

    status: int
    body: bytes
    retry_after: int | None = None


class Cut(Exception):
    """The connection is closed without a response."""


_REASONS = {
    403: "Forbidden",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def failure_status(code: int, message: str) -> dict[str, Any]:
    """Return the Status object of a failed request."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, ""),
        "code": code,
    }


def refusal(code: int, message: str, retry_after: int | None = None) -> Reply:
    """Return the response to a refused request."""
    return Reply(code, json.dumps(failure_status(code, message)).encode(), retry_after)
