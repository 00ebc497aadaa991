"""What a server on this machine refuses: requests of foreign web pages, and those without its key.

A page of any site can send requests to a port of the machine of its visitor. If its own name is
made to lead to 127.0.0.1 (DNS rebinding), the browser even lets it read the answers. Such requests
have that name as their ``Host``.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import ipaddress
import os
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]

#: The environment variable with further names under which a server answers, separated by commas.
ENV_HOSTS = "SELFEMO_SERVE_HOSTS"
#: The environment variable with the key that vLLM's clients send.
ENV_KEY = "VLLM_API_KEY"
#: Paths without a key: kubelet's probes and Prometheus have none. They tell nothing of any request.
OPEN_PATHS = ("/health", "/metrics")


def is_known_host(host: str, names: Collection[str] = ()) -> bool:
    """Return whether the ``Host`` of a request is this machine's, or one of some names.

    Parameters
    ----------
    host
        The header's value, with or without a port.
    names
        Names in addition to those of this machine. Their ports do not count.

    Examples
    --------
    >>> is_known_host("127.0.0.1:7860"), is_known_host("[::1]"), is_known_host("localhost:80")
    (True, True, True)
    >>> is_known_host("evil.example:7860"), is_known_host("localhost.evil.example")
    (False, False)
    >>> is_known_host("models.example", ["models.example:443"]), is_known_host("localhost.")
    (True, True)
    """
    name = _host_name(host)
    if name == "localhost" or (name and name in map(_host_name, names)):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def allowed_name(text: str) -> str:
    """Return a name for `--allow-host`.

    Parameters
    ----------
    text
        The text of the option: a name or an address, with or without a port.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is a URL, or not a name.

    Examples
    --------
    >>> allowed_name("models.example:443")
    'models.example:443'
    """
    if "/" in text or not _host_name(text):
        raise argparse.ArgumentTypeError(f"{text}: must be a hostname, e.g. models.example")
    return text


def _host_name(host: str) -> str:
    """Return a name without its port and without the dot at the end of a full name."""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"  # an IPv6 address as people write it
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def is_own_origin(origin: str, host: str, names: Collection[str] = ()) -> bool:
    """Return whether the page that sends a request is of the same server, or has a known name.

    Parameters
    ----------
    origin
        The value of the header ``Origin``. ``null`` is a page without an origin.
    host
        The value of the header ``Host``.
    names
        Names in addition to those of this machine. Their ports do not count.

    Examples
    --------
    >>> is_own_origin("http://localhost:7860", "localhost:7860")
    True
    >>> is_own_origin("http://localhost:3000", "localhost:7860"), is_own_origin("null", "localhost")
    (False, False)
    """
    try:
        page = urlsplit(origin).netloc
    except ValueError:
        return False
    name = _host_name(page)
    return page == host or (bool(name) and name in map(_host_name, names))


class KnownHosts:
    """ASGI middleware that refuses requests for another host than this machine.

    Parameters
    ----------
    app
        The application.
    names
        Further names. None: those of :data:`ENV_HOSTS`.
    """

    def __init__(self, app: App, names: Collection[str] | None = None) -> None:
        self._app = app
        listed = os.environ.get(ENV_HOSTS, "").split(",")
        self._names = [name.strip() for name in listed if name.strip()] if names is None else names

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answer a request, or refuse it with 403."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = self._refusal(_header(scope, b"host") or "", _header(scope, b"origin"))
        if reason is None:
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, send, 403, reason)

    def _refusal(self, host: str, origin: str | None) -> str | None:  # noqa: ARG002 - see OwnPages
        if is_known_host(host, self._names):
            return None
        return (
            "this server only accepts requests for localhost; use --allow-host to accept "
            "another hostname"
        )


class OwnPages(KnownHosts):
    """The same, and it refuses requests that a page of another origin sends."""

    def _refusal(self, host: str, origin: str | None) -> str | None:
        if origin is not None and not is_own_origin(origin, host, self._names):
            return (
                "this server only accepts requests from its own pages; use --allow-host to "
                "accept another hostname"
            )
        return super()._refusal(host, origin)


class RequiredKey:
    """ASGI middleware that requires the key of :data:`ENV_KEY` on each path except ``OPEN_PATHS``.

    vLLM itself requires it below `/v1` and few others, and `/invocations` does what these do.

    Parameters
    ----------
    app
        The application.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._key = hashlib.sha256(os.environ[ENV_KEY].encode()).digest()

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answer a request, or refuse it with 401. Preflight requests of browsers have no key."""
        is_request = scope["type"] in ("http", "websocket") and scope.get("method") != "OPTIONS"
        if not is_request or scope["path"] in OPEN_PATHS or self._has_key(scope):
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, send, 401, "Unauthorized")

    def _has_key(self, scope: Scope) -> bool:
        kind, _, key = (_header(scope, b"authorization") or "").partition(" ")
        given = hashlib.sha256(key.encode("latin-1")).digest()
        return kind.lower() == "bearer" and hmac.compare_digest(given, self._key)


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


async def _refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{reason}\n".encode()})
