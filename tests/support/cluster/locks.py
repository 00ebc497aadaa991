"""A lock between processes that ends with its holder, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_OWN_RUN = secrets.token_hex(8)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a file, alone or together with others; wait for whoever excludes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


def this_run() -> str:
    """Return a name of this test run: workers that share its tests (pytest-xdist) have the same."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID") or _OWN_RUN


@contextlib.contextmanager
def locked_alone(path: Path) -> Iterator[bool]:
    """Yield whether nobody else holds the lock; nobody gets it meanwhile."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def replace_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file at once: a reader sees the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.chmod(mode)
    part.replace(path)
