"""A server with the part of the Hugging Face Hub's interface that models are read through."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support.loopback_server import LoopbackServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ModelHub(LoopbackServer):
    """A hub with one model, ``owner/tiny``. It is a context manager.

    Parameters
    ----------
    folder
        The folder of the model.
    certificates
        A folder for a certificate that the hub signs itself. None: the hub has no TLS.
    """

    PROTOCOL = "HTTP/1.1"

    def __init__(self, folder: Path, certificates: Path | None = None) -> None:
        super().__init__()
        self.folder = folder
        self.status = 200
        """The status of all replies."""
        self.sent: dict[str, int] = {}
        """The number of bytes of each file that were sent."""
        scheme = "http"
        if certificates is not None:
            scheme = "https"
            self.certificate = certificates / "certificate.pem"
            self.use_tls(_signed_by_itself(certificates, self.certificate))
        self.endpoint = f"{scheme}://localhost:{self.port}"

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        status, headers, body = self._reply(path, handler.headers.get("Range", ""))
        if with_body:
            name = path.rpartition("/")[2]
            self.sent[name] = self.sent.get(name, 0) + len(body)
        self.send(handler, status, headers, body, with_body=with_body)

    def _reply(self, path: str, part: str) -> tuple[int, dict[str, str], bytes]:
        if self.status != 200:
            return self.status, {}, b""
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        if info:
            return self._info(info[1], info[2] or "main")
        file = re.fullmatch(r"/owner/tiny/resolve/([^/]+)/([^/]+)", path)
        if file is None or not (self.folder / file[2]).is_file():
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        data = (self.folder / file[2]).read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{file[2]}"'}
        match = re.fullmatch(r"bytes=0-(\d+)", part)
        if match is None:
            return 200, headers, data
        end = min(int(match[1]) + 1, len(data))
        return 206, {**headers, "Content-Range": f"bytes 0-{end - 1}/{len(data)}"}, data[:end]

    def _info(self, name: str, revision: str) -> tuple[int, dict[str, str], bytes]:
        if name != "owner/tiny":
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if revision not in {"main", COMMIT}:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        siblings = [
            {"rfilename": path.name, "size": path.stat().st_size} for path in self.folder.iterdir()
        ]
        content = {"id": name, "sha": COMMIT, "siblings": siblings}
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _signed_by_itself(folder: Path, certificate: Path) -> ssl.SSLContext:
    """Return the context of a server with a certificate that it signs itself."""
    key = folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
