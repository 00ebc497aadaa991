"""A registry with one image that asks for a password, as a private registry does."""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.support.loopback_server import LoopbackServer

Json = dict[str, Any]
_OCI = "application/vnd.oci.image"
_USER, _PASSWORD = "puller", "only with this"


class PrivateRegistry(LoopbackServer):
    """A registry on this machine. It is a context manager.

    A container runtime takes plain HTTP for 127.0.0.1.

    Parameters
    ----------
    archive
        An archive of one image, in the format of ``docker save``.
    name
        The name of the image in the registry, without a tag.
    """

    TAG = "private"
    PROTOCOL = "HTTP/1.1"

    def __init__(self, archive: Path, name: str) -> None:
        self._name = name
        self._blobs, self._manifest = _read(archive)
        self.pulled: list[str] = []
        """The paths that were given out, to clients with the password."""
        self.refused = 0
        """The number of requests without the password."""
        super().__init__()

    @property
    def image(self) -> str:
        """The reference of the image."""
        return f"{self.host}/{self._name}:{self.TAG}"

    def secret(self, name: str) -> Json:
        """Return the Secret with which a pod may pull the image."""
        login = {"username": _USER, "password": _PASSWORD, "auth": _login()}
        return {
            "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps({"auths": {self.host: login}})},
        }

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        status, kind, body = self._reply(handler.path, handler.headers.get("Authorization"))
        headers = {"Content-Type": kind or "application/json"}
        if status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="private"'
        if status == 200 and kind:
            headers["Docker-Content-Digest"] = _digest(body)
        self.send(handler, status, headers, body, with_body=with_body)

    def _reply(self, path: str, login: str | None) -> tuple[int, str, bytes]:
        """Return the status, the media type and the body of a response."""
        if login != f"Basic {_login()}":
            self.refused += 1
            return 401, "", b"{}"
        if path == "/v2/":
            return 200, "", b"{}"
        place, _, reference = path.rpartition("/")
        if place == f"/v2/{self._name}/manifests" and reference in (
            self.TAG,
            _digest(self._manifest),
        ):
            self.pulled.append(path)
            return 200, f"{_OCI}.manifest.v1+json", self._manifest
        if place == f"/v2/{self._name}/blobs" and reference in self._blobs:
            self.pulled.append(path)
            return 200, "application/octet-stream", self._blobs[reference]
        return 404, "", b"{}"


def _login() -> str:
    return base64.b64encode(f"{_USER}:{_PASSWORD}".encode()).decode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _read(archive: Path) -> tuple[dict[str, bytes], bytes]:
    """Return the blobs of an image by their digests, and its manifest."""
    with tarfile.open(archive) as tar:

        def content(name: str) -> bytes:
            member = tar.getmember(name)
            file = tar.extractfile(tar.getmember(member.linkname) if member.issym() else member)
            assert file is not None
            return file.read()

        (image,) = json.loads(content("manifest.json"))
        config, layers = content(image["Config"]), [content(name) for name in image["Layers"]]
    described = [(f"{_OCI}.config.v1+json", config)]
    described += [(f"{_OCI}.layer.v1.tar", layer) for layer in layers]
    entries = [
        {"mediaType": kind, "digest": _digest(blob), "size": len(blob)} for kind, blob in described
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": entries[0],
        "layers": entries[1:],
    }
    return {_digest(blob): blob for _, blob in described}, json.dumps(manifest).encode()
