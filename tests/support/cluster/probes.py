"""Requests to the cluster's servers, without a client library, so that `up` is fast."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.cluster.certificates import Authority
from tests.support.cluster.errors import ClusterError


def answers(url: str) -> bool:
    """Return whether a GET returns 200, with any certificate of the server."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return _send("GET", url, context)[0] == 200
    except OSError:
        return False


def listens(path: Path) -> bool:
    """Return whether a process accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class Api:
    """A client of the API server with an administrator's rights."""

    def __init__(self, server: str, authority: Authority) -> None:
        self._server = server
        self._context = ssl.create_default_context(cafile=str(authority.certificate))
        certificate, key = authority.client("kubeconfig", "admin", "system:masters")
        self._context.load_cert_chain(certificate, key)

    def ready(self) -> bool:
        """Return whether the API server reports that it is ready."""
        try:
            return self._send("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> dict[str, Any] | None:
        """Return an object, or None if it does not exist (yet)."""
        try:
            status, body = self._send("GET", path)
        except OSError:
            return None
        item: dict[str, Any] = json.loads(body) if status == 200 else {}
        return item or None

    def apply(self, path: str, manifest: dict[str, Any]) -> None:
        """Apply an object (server-side apply).

        Raises
        ------
        ClusterError
            If the API server rejects the object.
        """
        query = "?fieldManager=selfemo-test&force=true"
        headers = {"Content-Type": "application/apply-patch+yaml"}
        status, body = self._send("PATCH", path + query, json.dumps(manifest), headers)
        if status >= 300:
            raise ClusterError(f"{path}: {body.decode(errors='replace')[:500]}")

    def _send(
        self, method: str, path: str, body: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        return _send(method, self._server + path, self._context, body, headers)


def _send(
    method: str,
    url: str,
    context: ssl.SSLContext,
    body: str = "",
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=5, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    try:
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, target, body or None, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"{url}: {error}") from error
    finally:
        connection.close()
