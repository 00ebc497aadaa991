"""A server with the part of the Hugging Face Hub's interface through which models are uploaded."""

from __future__ import annotations

import base64
import json
import re
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from tests.support.loopback_server import LoopbackServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class WritableHub(LoopbackServer):
    """A hub on which repositories can be made and written. It is a context manager.

    Parameters
    ----------
    token
        The token with which requests must come.
    """

    PROTOCOL = "HTTP/1.1"

    def __init__(self, token: str) -> None:
        super().__init__()
        self.endpoint = f"http://localhost:{self.port}"
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}
        """The files of each repository, by path."""
        self.visibility: dict[str, str | None] = {}
        """The requested visibility of each repository that was made."""
        self.commits: list[list[str]] = []
        """The paths that each commit changed; those that it deleted with a minus sign."""
        self.status = 200
        """The status of all replies."""

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        body = self._body(handler)
        path = unquote(urlsplit(handler.path).path)
        if self.status != 200:
            status, content = self.status, b"{}"
        elif handler.headers.get("Authorization") != f"Bearer {self.token}":
            status, content = 401, b'{"error": "Invalid credentials"}'
        else:
            status, content = self._reply(handler.command, path, body)
        headers = {"Content-Type": "application/json"}
        self.send(handler, status, headers, content, with_body=with_body)

    @staticmethod
    def _body(handler: BaseHTTPRequestHandler) -> bytes:
        if handler.headers.get("Transfer-Encoding") != "chunked":
            return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        body = b""
        while size := int(handler.rfile.readline(), 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return body

    def _reply(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if method == "POST":
            return self._post(path, body)
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
        if info:
            return self._info(info[1])
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/(.+)", path)
        if file and file[2] in self.repositories.get(file[1], {}):
            return 200, self.repositories[file[1]][file[2]]
        return 404, b"{}"

    def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, b'{"errors": [], "warnings": []}'
        action = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path)
        if action is None:
            return 404, b"{}"
        if action[2] == "commit":
            return self._commit(action[1], body)
        modes = [
            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
            for f in json.loads(body)["files"]
        ]
        return 200, json.dumps({"files": modes}).encode()

    def _create(self, request: dict[str, str]) -> tuple[int, bytes]:
        name = f"{request['organization']}/{request['name']}"
        reply = json.dumps({"url": f"{self.endpoint}/{name}"}).encode()
        if name in self.repositories:
            return 409, reply
        self.repositories[name] = {".gitattributes": b"*.safetensors filter=lfs\n"}
        self.visibility[name] = request.get("visibility")
        return 200, reply

    def _commit(self, name: str, body: bytes) -> tuple[int, bytes]:
        files, changed = self.repositories[name], []
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                changed.append(value["path"])
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
                changed.append("-" + value["path"])
        self.commits.append(sorted(changed))
        url = f"{self.endpoint}/{name}/commit/{COMMIT}"
        reply = {"success": True, "commitOid": COMMIT, "commitUrl": url}
        return 200, json.dumps(reply).encode()

    def _info(self, name: str) -> tuple[int, bytes]:
        if name not in self.repositories:
            return 404, b"{}"
        files = self.repositories[name]
        siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
        return 200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode()
