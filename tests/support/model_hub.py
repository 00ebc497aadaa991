"""A server with the part of the Hugging Face Hub's interface that models are read through."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ModelHub:
    """A hub with one model, ``owner/tiny``. It is a context manager.

    Parameters
    ----------
    folder
        The folder of the model.
    certificates
        A folder for a certificate that the hub signs itself. None: the hub has no TLS.
    """

    def __init__(self, folder: Path, certificates: Path | None = None) -> None:
        hub = self
        self.folder = folder
        self.status = 200
        """The status of all replies."""
        self.sent: dict[str, int] = {}
        """The number of bytes of each file that were sent."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self, with_body=True)

            def do_HEAD(self) -> None:
                hub._answer(self, with_body=False)

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        scheme = "http"
        if certificates is not None:
            scheme = "https"
            self.certificate = certificates / "certificate.pem"
            self._server.socket = _with_tls(self._server, certificates, self.certificate)
        self.endpoint = f"{scheme}://localhost:{self._server.server_port}"

    def __enter__(self) -> ModelHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        status, headers, body = self._reply(path, handler.headers.get("Range", ""))
        handler.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if with_body:
            name = path.rpartition("/")[2]
            self.sent[name] = self.sent.get(name, 0) + len(body)
            handler.wfile.write(body)

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


def _with_tls(server: ThreadingHTTPServer, folder: Path, certificate: Path) -> ssl.SSLSocket:
    """Return the server's socket with a certificate that it signs itself."""
    key = folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context.wrap_socket(server.socket, server_side=True)
