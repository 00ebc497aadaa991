"""An S3 server in this process that refuses what some real servers refuse.

Use the real server of :mod:`tests.support.s3_server` for everything else.
"""

from __future__ import annotations

import threading
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse
from xml.sax.saxutils import escape

from selfemo_api.spec import StorageSpec


class Habit(StrEnum):
    """What the server does not do."""

    CHECKSUMS = "refuses checksums"
    CONDITIONS = "refuses conditions"
    IGNORES_CONDITIONS = "ignores conditions"
    REPLACEMENTS = "refuses If-Match"
    DELETES = "refuses to delete"
    BUSY = "busy"
    VERSIONS = "keeps what is removed"
    SECRET_VERSIONS = "does not show versions"
    LOCKS = "keeps locked objects"
    TOKEN = "regards the session token as expired"


class PickyS3:
    """A server with one bucket, on the loopback interface.

    Parameters
    ----------
    habits
        What it does not do.
    code, status, message
        How it refuses checksums: the code, the status and the message of the reply.
    times
        How many requests with checksums it refuses. None: all.
    """

    def __init__(
        self,
        *habits: Habit,
        code: str = "SignatureDoesNotMatch",
        status: int = 403,
        message: str = "Access denied.",
        times: int | None = None,
    ) -> None:
        self.objects: dict[str, bytes] = {}
        self.versions: list[str] = []
        self.refused = 0
        """The number of requests with checksums that were refused."""
        server, refusal = self, (status, code, message)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _reply(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("ETag", '"tag"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _refuse(self, status: int, code: str, message: str) -> None:
                text = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
                self._reply(status, text.encode())

            @property
            def _key(self) -> str:
                return unquote(urlparse(self.path).path).removeprefix("/bucket").lstrip("/")

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                names = [name.lower() for name in self.headers]
                conditional = "if-none-match" in names
                if Habit.BUSY in habits:
                    return self._refuse(503, "SlowDown", "Reduce your request rate.")
                refuses = Habit.CHECKSUMS in habits and (times is None or server.refused < times)
                if refuses and any("checksum" in name for name in names):
                    server.refused += 1
                    return self._refuse(*refusal)
                if Habit.CONDITIONS in habits and conditional:
                    text = "A header you provided implies functionality that is not implemented"
                    return self._refuse(501, "NotImplemented", text)
                if Habit.REPLACEMENTS in habits and "if-match" in names:
                    return self._refuse(501, "NotImplemented", "If-Match is not implemented.")
                honored = conditional and Habit.IGNORES_CONDITIONS not in habits
                if honored and self._key in server.objects:
                    return self._refuse(412, "PreconditionFailed", "It exists.")
                server.objects[self._key] = data
                return self._reply(200)

            def do_GET(self) -> None:
                query = parse_qs(urlparse(self.path).query, keep_blank_values=True)
                if Habit.BUSY in habits:
                    return self._refuse(503, "SlowDown", "Reduce your request rate.")
                if Habit.TOKEN in habits:
                    return self._refuse(400, "ExpiredToken", "The provided token has expired.")
                if query.keys() & {"list-type", "uploads", "versions"}:
                    return self._list(query)
                if self._key not in server.objects:
                    return self._refuse(404, "NoSuchKey", "There is none.")
                return self._reply(200, server.objects[self._key])

            def _list(self, query: dict[str, list[str]]) -> None:
                if "list-type" in query:
                    return self._reply(200, server._listing(query["prefix"][0]))
                if "uploads" in query:
                    empty = b"<ListMultipartUploadsResult></ListMultipartUploadsResult>"
                    return self._reply(200, empty)
                if Habit.SECRET_VERSIONS in habits:
                    return self._refuse(403, "AccessDenied", "No.")
                return self._reply(200, server._versions(query["prefix"][0]))

            def do_HEAD(self) -> None:
                if habits and habits[0] in {Habit.BUSY, Habit.TOKEN}:
                    return self._reply(503 if habits[0] is Habit.BUSY else 400)
                return self._reply(200 if self._key in {"", *server.objects} else 404)

            def do_DELETE(self) -> None:
                if Habit.DELETES in habits:
                    return self._refuse(403, "AccessDenied", "No.")
                if Habit.LOCKS in habits and self._key.endswith("locked"):
                    return self._refuse(403, "AccessDenied", "The object is locked.")
                data = server.objects.pop(self._key, None)
                if data is not None and Habit.VERSIONS in habits:
                    server.versions.append(self._key)
                return self._reply(204)

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def storage(self, **changes: object) -> StorageSpec:
        """Return the spec of the storage; `changes` are camelCase fields."""
        fields = {"uri": "s3://bucket/runs", "endpoint": self.endpoint, "pathStyle": True}
        return StorageSpec.model_validate({**fields, "maxAttempts": 1, **changes})

    def _listing(self, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size></Contents>"
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return f"<ListBucketResult>{entries}</ListBucketResult>".encode()

    def _versions(self, prefix: str) -> bytes:
        entries = "".join(
            f"<Version><Key>{escape(key)}</Key><VersionId>1</VersionId></Version>"
            for key in self.versions
            if key.startswith(prefix)
        )
        return f"<ListVersionsResult>{entries}</ListVersionsResult>".encode()

    def __enter__(self) -> PickyS3:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
