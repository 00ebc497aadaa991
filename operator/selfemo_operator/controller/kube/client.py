"""Requests to the API server as JSON: the official client's connection pool without its models.

The models cost memory (about 100 MB) and time for every object, and the operator reads only a few
fields of each. JSON is parsed and written by pydantic's parser, which is two to three times as fast
as the standard library's: with hundreds of evolutions, JSON takes a quarter of the CPU time.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import kubernetes
import urllib3
from kubernetes.client import ApiClient, Configuration
from pydantic_core import from_json, to_json

from selfemo_operator.controller.kube.request_rate import RequestRate

Json = dict[str, Any]

#: Connect and read timeouts of one request, in seconds. The API server itself gives up after 60 s.
TIMEOUT = (5, 65)
#: Bytes that are read of a response at a time, where its size is limited.
_CHUNK_BYTES = 65536


class ApiError(Exception):
    """The API server rejected a request, or it could not be reached.

    Attributes
    ----------
    status
        The HTTP status, or 0 if there was no response.
    reason
        The reason that the API server gave, such as ``AlreadyExists`` or ``Invalid``.
    message
        The message that the API server gave, or the text of the connection error.
    retry_after
        The number of seconds to wait that the server asked for, or None.
    """

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later: the server was busy, or out of reach."""
        return self.status in (0, 408, 429) or self.status >= 500

    @property
    def is_policy(self) -> bool:
        """Whether an admission webhook or a policy denies the object.

        The status does not show it: a denial has 403 by a Gatekeeper, 400 by a webhook that sets
        none, and 422 by a ValidatingAdmissionPolicy.
        """
        return self.message.startswith("admission webhook") or (
            "ValidatingAdmissionPolicy" in self.message
        )


class ResponseTooLarge(ApiError):
    """The response is larger than the caller allows. The rest of it was not read."""

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(0, "TooLarge", f"GET {path}: the response has more than {limit} bytes")


class KubeClient:
    """A connection pool to one API server.

    Parameters
    ----------
    connections
        The number of requests that may run at the same time.
    kubeconfig
        The path of a kubeconfig file. None uses the pod's service account, or the default
        kubeconfig outside a cluster.
    context
        The context of the kubeconfig file. None: its current context.
    rate
        The limit of requests in a second. None: no limit.
    """

    def __init__(
        self,
        connections: int,
        kubeconfig: str | None = None,
        context: str | None = None,
        rate: RequestRate | None = None,
    ) -> None:
        configuration = _configuration(kubeconfig, context)
        configuration.connection_pool_maxsize = connections
        configuration.retries = False  # callers decide: the work queue backs off
        self._client = ApiClient(configuration)
        self._open = _opener(self._client, configuration.host.rstrip("/"))
        self._timeout = urllib3.Timeout(connect=TIMEOUT[0], read=TIMEOUT[1])
        self._rate = rate
        self.on_response: Callable[[str, int], None] = lambda _verb, _status: None
        """Called with the verb and status of each request; the status is 0 without a response."""

    @property
    def host(self) -> str:
        """The URL of the API server."""
        return str(self._client.configuration.host)

    def with_timeout(self, seconds: float) -> KubeClient:
        """Return a client that shares the connections and has a shorter timeout.

        Its requests do not wait for the limit of requests in a second.

        Parameters
        ----------
        seconds
            The longest time that a whole request may take.
        """
        client = copy.copy(self)
        client._timeout = urllib3.Timeout(total=seconds)
        client._rate = None
        return client

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """Return an object or a list. Raises ApiError."""
        return self._request("GET", path, query)

    def get_text(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        accept: str = "application/json",
        max_bytes: int | None = None,
    ) -> bytes:
        """Return the text of an object or a list.

        Parameters
        ----------
        path
            The path of the object or of the list.
        query
            The query of the list.
        accept
            The media type, such as that of the metadata alone.
        max_bytes
            The largest response that is read. None: no limit.

        Raises
        ------
        ResponseTooLarge
            If the response has more bytes.
        ApiError
            If the API server rejects the request or cannot be reached.
        """
        response = self._send("GET", path, query, None, "", self._timeout, accept)
        return _read(response, "GET", path, max_bytes)

    def replace_text(self, path: str, body: Json) -> bytes:
        """Replace an object as :meth:`replace` does; return the text of the response."""
        response = self._send("PUT", path, None, body, "application/json", self._timeout)
        return _read(response, "PUT", path)

    def create(self, path: str, body: Json) -> Json:
        """Create an object and return it. Raises ApiError (status 409 if it exists)."""
        return self._request("POST", path, None, body)

    def replace(self, path: str, body: Json) -> Json:
        """Replace an object; its `resourceVersion` is the precondition. Raises ApiError."""
        return self._request("PUT", path, None, body)

    def patch(self, path: str, body: Json) -> Json:
        """Change fields with a JSON merge patch and return the object. Raises ApiError."""
        return self._request("PATCH", path, None, body, "application/merge-patch+json")

    def delete(self, path: str, uid: str, version: str | None = None) -> bool:
        """Delete an object in the background if it still has a given uid.

        It is not an error if the object is gone, or if it has changed since the given version:
        the watch reports that change to the caller.

        Parameters
        ----------
        path
            The path of the object.
        uid
            The uid that the object must have.
        version
            The resource version that the object must have. None accepts any version.

        Returns
        -------
        bool
            False if the object has another uid or another version. True if it is deleted or gone.

        Raises
        ------
        ApiError
            If the API server rejects the request or cannot be reached.
        """
        preconditions = {"uid": uid, **({"resourceVersion": version} if version else {})}
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        }
        try:
            self._request("DELETE", path, None, options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            return error.status == 404
        return True

    def watch(
        self,
        path: str,
        query: Mapping[str, str],
        read_timeout: float,
        on_open: Callable[[Callable[[], None]], None] = lambda _: None,
    ) -> Iterator[Json]:
        """Yield watch events until the server closes the stream. Raises ApiError.

        Parameters
        ----------
        path
            The path of the list.
        query
            The query of the watch, such as the resource version.
        read_timeout
            Seconds without any byte after which the stream counts as broken.
        on_open
            A function that receives a function which ends the stream from another thread.
        """
        timeout = urllib3.Timeout(connect=TIMEOUT[0], read=read_timeout)
        response = self._send("GET", path, {**query, "watch": "true"}, None, "", timeout)
        on_open(lambda: _shut_down(response))
        try:
            buffer = b""
            for chunk in response.stream(65536, decode_content=True):
                *lines, buffer = (buffer + chunk).split(b"\n")
                yield from (from_json(line) for line in lines if line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ApiError(0, "Stream", f"the watch of {path} broke off: {error}") from error
        finally:
            response.close()  # first: the rest of the stream must not reach another request
            response.release_conn()

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        response = self._send(method, path, query, body, content_type, self._timeout)
        text = _read(response, method, path)
        try:
            document: Json = from_json(text or b"{}")
        except ValueError as error:
            message = f"{method} {path}: the response is not JSON: {error}"
            raise ApiError(0, "Response", message) from error
        return document

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Json | None,
        content_type: str,
        timeout: urllib3.Timeout,
        accept: str = "application/json",
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": accept, "User-Agent": "selfemo-operator"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        if body is not None:
            headers["Content-Type"] = content_type
        verb = "WATCH" if query and "watch" in query else method
        if self._rate is not None:
            self._rate.wait()
        try:
            response = self._open(
                method,
                f"{path}?{urlencode(query)}" if query else path,
                headers=headers,
                body=None if body is None else to_json(body),
                timeout=timeout,
                preload_content=False,
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self.on_response(verb, 0)
            raise ApiError(0, "Unreachable", f"{method} {path}: {error}") from error
        self.on_response(verb, response.status)
        if response.status >= 400:
            raise _error_from(response)
        return response


def _opener(client: ApiClient, host: str) -> Callable[..., urllib3.BaseHTTPResponse]:
    """Return a function that sends a request, whose path is below that of the host.

    It uses the pool of connections of the host. Finding that pool takes a lock, for which the
    threads of dozens of requests would wait. A proxy finds its pools itself.
    """
    manager = client.rest_client.pool_manager
    if manager.proxy is not None:
        return lambda method, path, **options: manager.request(method, host + path, **options)
    pool, below = manager.connection_from_url(host), urlsplit(host).path
    return lambda method, path, **options: pool.urlopen(
        method, below + path, redirect=False, assert_same_host=False, **options
    )


def _configuration(kubeconfig: str | None, context: str | None = None) -> Configuration:
    configuration = Configuration()
    config: Any = kubernetes.config  # its functions have no types
    if kubeconfig is not None:
        config.load_kube_config(kubeconfig, context, client_configuration=configuration)
        return configuration
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        config.load_kube_config(client_configuration=configuration)
    return configuration


def _read(
    response: urllib3.BaseHTTPResponse, method: str, path: str, max_bytes: int | None = None
) -> bytes:
    """Return the body of a response. Raises ApiError if it is incomplete or too large."""
    try:
        if max_bytes is None:
            return response.read(decode_content=True)
        text = bytearray()
        for chunk in response.stream(_CHUNK_BYTES, decode_content=True):
            text += chunk
            if len(text) > max_bytes:
                response.close()  # the rest must not reach another request
                raise ResponseTooLarge(path, max_bytes)
        return bytes(text)
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        message = f"{method} {path}: the response is incomplete: {error}"
        raise ApiError(0, "Response", message) from error
    finally:
        response.release_conn()


def _shut_down(response: urllib3.BaseHTTPResponse) -> None:
    """Let the thread that reads a response see its end."""
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        response.shutdown()  # it may have ended already


def _error_from(response: urllib3.BaseHTTPResponse) -> ApiError:
    """Return the error that a response with a status of 400 or more describes."""
    try:
        text = response.read(decode_content=True).decode("utf-8", "replace")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        text = f"the response is incomplete: {error}"
    finally:
        response.release_conn()
    after = response.headers.get("Retry-After", "")
    try:
        status = from_json(text)
    except ValueError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    return ApiError(
        response.status,
        str(status.get("reason", "")),
        str(status.get("message", text))[:2000],
        float(after) if after.isdigit() else None,
    )
