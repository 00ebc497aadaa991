"""A server with the part of the Hugging Face Hub's interface that datasets are read through."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from tests.support.loopback_server import LoopbackServer


class DatasetHub(LoopbackServer):
    """A hub with datasets, each with one commit. It is a context manager.

    Parameters
    ----------
    datasets
        The files of each dataset, by its name ``owner/name``.
    """

    def __init__(self, datasets: Mapping[str, Mapping[str, bytes]]) -> None:
        self.datasets = datasets
        self.requests: list[str] = []
        super().__init__()

    @property
    def endpoint(self) -> str:
        """The URL of the hub."""
        return f"http://{self.host}"

    def commit(self, name: str) -> str:
        """Return the commit of a dataset."""
        return hashlib.sha1(repr(sorted(self.datasets[name].items())).encode()).hexdigest()

    def answer(self, handler: BaseHTTPRequestHandler, *, with_body: bool) -> None:
        path = unquote(urlsplit(handler.path).path)
        self.requests.append(path)
        status, headers, body = self._reply(path)
        self.send(handler, status, headers, body, with_body=with_body)

    def _reply(self, path: str) -> tuple[int, dict[str, str], bytes]:
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:
            return self._info("/".join(parts[2:4]), parts[5] if "revision" in parts else "main")
        if parts[0] == "datasets" and "resolve" in parts:
            return self._file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        return 404, {}, b""

    def _info(self, name: str, revision: str) -> tuple[int, dict[str, str], bytes]:
        files = self.datasets.get(name)
        if files is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if revision not in {"main", self.commit(name)}:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        siblings = [{"rfilename": file} for file in files]
        info = {"id": name, "sha": self.commit(name), "siblings": siblings}
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()

    def _file(self, name: str, revision: str, file: str) -> tuple[int, dict[str, str], bytes]:
        data = self.datasets.get(name, {}).get(file)
        if data is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        etag = hashlib.sha1(data).hexdigest()
        return 200, {"X-Repo-Commit": revision, "ETag": f'"{etag}"'}, data
