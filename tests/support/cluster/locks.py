"""A lock between processes that ends with its holder, and atomic writes of files."""

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
    """Hold the lock of a file, exclusive or shared; wait until it is available."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_in_turn(path: Path, *, alone: bool) -> Iterator[None]:
    """Hold the lock of a file with others, or alone, in the order of arrival.

    Without an order, new holders of a shared lock would keep who wants it alone waiting.

    Parameters
    ----------
    path
        The file of the lock. Beside it is the file of the queue.
    alone
        Whether no other may hold the lock at the same time.
    """
    with contextlib.ExitStack() as held:
        with locked(path.with_suffix(".queue")):  # later ones wait here
            held.enter_context(locked(path, shared=not alone))
        yield


def this_run() -> str:
    """Return the name of this test run, which is the same for its workers (pytest-xdist)."""
    return os.environ.get("PYTEST_XDIST_TESTRUNUID") or _OWN_RUN


@contextlib.contextmanager
def locked_alone(path: Path) -> Iterator[bool]:
    """Try to get the exclusive lock; yield whether this process holds it."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def replace_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file atomically: a reader gets the old or the new content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.chmod(mode)
    part.replace(path)
