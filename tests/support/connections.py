"""Notes each attempt of child processes to connect to another machine, and lets it fail.

Python processes get an audit hook by ``sitecustomize``. Other programs honor the variables of HTTP
proxies, and the proxy here only notes who asked. Loopback is free.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_HOOK = """
import socket, sys
LOG = {log!r}

def hook(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        if not str(args[1][0]).startswith(("127.", "::1", "localhost")):
            refuse(f"connect {{args[1]}}")
    elif event == "socket.getaddrinfo" and args[0] not in (None, "", "localhost", "127.0.0.1"):
        refuse(f"look up {{args[0]}}")

def refuse(attempt):
    with open(LOG, "a") as file:
        file.write(f"{{sys.argv[:2]}}: {{attempt}}\\n")
    raise OSError("no network in this test")

sys.addaudithook(hook)
"""


@dataclass
class ConnectionLog:
    """The attempts so far."""

    file: Path
    variables: dict[str, str]
    """Environment variables for the processes to watch."""
    requests: list[str] = field(default_factory=list)
    """The first line of each request to the proxy."""

    def read(self) -> list[str]:
        """Return the attempts of all processes."""
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return lines + self.requests


@contextmanager
def connection_log(folder: Path) -> Iterator[ConnectionLog]:
    """Return a context with a log. Its variables must be in the environment of the processes."""
    folder.mkdir(parents=True)
    file = folder / "attempts"
    (folder / "sitecustomize.py").write_text(_HOOK.format(log=str(file)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        names = [f"{p}_proxy" for p in ("http", "https", "all")]
        variables = {"PYTHONPATH": str(folder), "NO_PROXY": "127.0.0.1,localhost"}
        variables |= {n: address for name in names for n in (name, name.upper())}
        log = ConnectionLog(file, variables)
        threading.Thread(target=_note_requests, args=(server, log.requests), daemon=True).start()
        yield log


def _note_requests(server: socket.socket, requests: list[str]) -> None:
    """Note the first line of each request until the server's socket is closed."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(2.0)
            try:
                requests.append(connection.recv(200).decode(errors="replace").partition("\r")[0])
            except OSError:
                requests.append("a connection without a request")
