"""Requests to the API server, as JSON: the official client's connection without its models.

The models cost memory (a hundred megabytes) and time on every object; the operator reads a few
fields of each. Texts are read and written by pydantic's parser: with hundreds of evolutions JSON is
a quarter of the operator's time, and that is two to three times as fast as the standard library's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import kubernetes
import urllib3
from kubernetes.client import ApiClient, Configuration
from pydantic_core import from_json, to_json

Json = dict[str, Any]

#: Connect and read bounds of one request. The API server itself gives up after 60 s.
TIMEOUT = (5, 65)


class ApiError(Exception):
    """The API server refused, or could not be reached.

    Attributes
    ----------
    status
        The HTTP status; 0 where there was no answer.
    reason
        The API's word for it (``AlreadyExists``, ``Invalid`` …).
    retry_after
        Seconds that the server asks for, if it does.
    """

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class KubeClient:
    """A connection pool to one API server.

    Parameters
    ----------
    connections
        How many requests may be under way at once.
    kubeconfig
        A file; None takes the pod's own service account, or the usual kubeconfig.
    """

    def __init__(self, connections: int, kubeconfig: str | None = None) -> None:
        configuration = _configuration(kubeconfig)
        configuration.connection_pool_maxsize = connections
        configuration.retries = False  # whoever asks decides: the work queue backs off
        self._client = ApiClient(configuration)
        self._timeout = urllib3.Timeout(connect=TIMEOUT[0], read=TIMEOUT[1])
        self.answered: Callable[[str, int], None] = lambda _verb, _status: None
        """Told the verb and status of each request; 0 where there was no answer."""

    def within(self, seconds: float) -> KubeClient:
        """Return the same connections for requests that must be answered sooner."""
        found = copy.copy(self)
        found._timeout = urllib3.Timeout(total=seconds)
        return found

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """Return an object or a list. Raises ApiError."""
        return self._answer("GET", path, query)

    def create(self, path: str, body: Json) -> Json:
        """Create an object. Raises ApiError (409 where it is there)."""
        return self._answer("POST", path, None, body)

    def replace(self, path: str, body: Json) -> Json:
        """Replace an object; its `resourceVersion` is the precondition. Raises ApiError."""
        return self._answer("PUT", path, None, body)

    def merge(self, path: str, body: Json) -> Json:
        """Change fields by JSON merge patch. Raises ApiError."""
        return self._answer("PATCH", path, None, body, "application/merge-patch+json")

    def delete(self, path: str, uid: str, version: str | None = None) -> None:
        """Delete an object in the background, if it is still the one with this uid.

        Gone already is as good, and so is one that has changed since the version given (if one
        is): whoever asks will hear of the change. Raises ApiError.
        """
        preconditions = {"uid": uid, **({"resourceVersion": version} if version else {})}
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": "Background",
            "preconditions": preconditions,
        }
        try:
            self._answer("DELETE", path, None, options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def watch(self, path: str, query: Mapping[str, str], read_timeout: float) -> Iterator[Json]:
        """Yield watch events until the server ends the stream. Raises ApiError."""
        timeout = urllib3.Timeout(connect=TIMEOUT[0], read=read_timeout)
        response = self._send("GET", path, {**query, "watch": "true"}, None, "", timeout)
        try:
            buffer = b""
            for chunk in response.stream(65536, decode_content=True):
                *lines, buffer = (buffer + chunk).split(b"\n")
                yield from (from_json(line) for line in lines if line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ApiError(0, "Stream", f"the watch of {path} broke: {error}") from error
        finally:
            response.close()  # first: what is left of the stream must not meet another request
            response.release_conn()

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        response = self._send(method, path, query, body, content_type, self._timeout)
        try:
            found: Json = from_json(response.read(decode_content=True) or b"{}")
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ApiError(0, "Answer", f"{method} {path}: no whole answer: {error}") from error
        finally:
            response.release_conn()
        return found

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Json | None,
        content_type: str,
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "selfemo-operator"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        if body is not None:
            headers["Content-Type"] = content_type
        url = f"{self._client.configuration.host.rstrip('/')}{path}"
        verb = "WATCH" if query and "watch" in query else method
        try:
            response: urllib3.BaseHTTPResponse = self._client.rest_client.pool_manager.request(
                method,
                f"{url}?{urlencode(query)}" if query else url,
                headers=headers,
                body=None if body is None else to_json(body),
                timeout=timeout,
                preload_content=False,
                retries=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self.answered(verb, 0)
            raise ApiError(0, "Unreachable", f"{method} {path}: {error}") from error
        self.answered(verb, response.status)
        if response.status >= 400:
            raise _refused(response)
        return response


def _configuration(kubeconfig: str | None) -> Configuration:
    configuration = Configuration()
    config: Any = kubernetes.config  # its functions have no types
    if kubeconfig is not None:
        config.load_kube_config(kubeconfig, client_configuration=configuration)
        return configuration
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException:
        config.load_kube_config(client_configuration=configuration)
    return configuration


def _refused(response: urllib3.BaseHTTPResponse) -> ApiError:
    try:
        text = response.read(decode_content=True).decode("utf-8", "replace")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        text = f"no whole answer: {error}"
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
