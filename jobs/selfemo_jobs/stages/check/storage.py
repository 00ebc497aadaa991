"""Whether the storage is writable, and keeps what two writers of one run rely on."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selfemo_api.spec import Keep
from selfemo_jobs.errors import BadInput, Unavailable, error_line
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.store import ObjectNotFound, Store, join, open_store
from selfemo_jobs.store.folder import file_path
from selfemo_jobs.store.s3_codes import DAMAGED_ON_THE_WAY

log = logging.getLogger(__name__)

_FIELD = "storage.uri"
_CHECKSUMS = "storage.checksums"
_SUPPORTED, _REQUIRED = "WhenSupported", "WhenRequired"
_FIRST, _SECOND = b"first", b"second"


@dataclass(frozen=True)
class Reader:
    """What the input is read with."""

    store: Store
    """The run's store, or one that works where that one does not."""
    reads_s3: bool = True
    """Whether objects on S3 can be read. If not, the storage has a problem already."""

    def skips(self, uri: str) -> bool:
        """Return whether a URI cannot be read for the problem that the storage has."""
        return uri.startswith("s3://") and not self.reads_s3


def check_storage(store: Store, folder: str, findings: Findings) -> Reader:
    """Find why a run could not write its results, with a small object that is removed again.

    A run needs these things of a storage: an object can be written and read again, a second writer
    of the same object is refused (``If-None-Match``), an object is replaced only if it is the one
    that was read (``If-Match``), and requests may have checksums. Where the last one fails, the
    same is tried without checksums. With ``storage.keep``, objects must be removable, too.

    Parameters
    ----------
    store
        The run's store.
    folder
        The URI of a folder for the object.
    findings
        The problems and warnings are added to it.

    Returns
    -------
    Reader
        What the input can be read with.
    """
    place = join(folder, f"probe-{secrets.token_hex(8)}")
    with findings.collecting(_FIELD), _without_new_folders(folder), _named(folder, place):
        working = _writable_store(store, join(place, "plain"), findings)
        try:
            _check_conditional_put(working, join(place, "conditional"), findings)
            _check_replacement(working, join(place, "plain"), findings)
        finally:
            _remove(working, place, findings)
        return Reader(working)
    return Reader(store, reads_s3=not folder.startswith("s3://") or _is_readable(store, folder))


def check_writable(store: Store, folder: str, path: str, findings: Findings) -> None:
    """Find why a small object cannot be written to a folder, and remove it again.

    Parameters
    ----------
    store
        A store that reaches the folder.
    folder
        The URI of the folder. It need not exist, and is not made.
    path
        The dotted path of the field that names the folder.
    findings
        The problems are added to it.
    """
    uri = join(folder, f".selfemo-{secrets.token_hex(8)}.tmp")  # a folder's list leaves it out
    with findings.collecting(path), _without_new_folders(folder), _named(folder, uri):
        try:
            _write_and_read(store, uri)
        finally:
            store.delete(uri)


def _is_readable(store: Store, folder: str) -> bool:
    """Return whether a storage that cannot be written to can be read."""
    try:
        store.exists(join(folder, "none"))
    except (BadInput, Unavailable):
        return False
    return True


def _writable_store(store: Store, uri: str, findings: Findings) -> Store:
    """Return a store with which an object was written and read again.

    It is the given store, or one that sends no checksums, which is a problem then.

    Raises
    ------
    BadInput
        If neither can write.
    """
    storage = store.storage
    try:
        _write_and_read(store, uri)
    except (BadInput, Unavailable) as error:
        on_s3 = storage.uri.startswith("s3://")
        if not on_s3 or storage.checksums == _REQUIRED or not _may_be_checksums(error):
            raise
        plain = open_store(storage.model_copy(update={"checksums": _REQUIRED}))
        try:
            _write_and_read(plain, uri)
        except (BadInput, Unavailable):
            raise error from None  # checksums are not the cause
        findings.problem(
            _CHECKSUMS,
            f"is {_SUPPORTED}, but {storage.endpoint or storage.uri} rejects requests with "
            f"checksums ({_reason(error)}): set {_REQUIRED}",
        )
        return plain
    return store


def _may_be_checksums(error: BadInput | Unavailable) -> bool:
    """Return whether the checksums of a request can be the reason for its error."""
    response = getattr(error.__cause__, "response", {})
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return isinstance(error, BadInput) or code in DAMAGED_ON_THE_WAY


def _write_and_read(store: Store, uri: str) -> None:
    store.put(uri, _FIRST)
    try:
        content = store.get(uri)
    except ObjectNotFound:
        content = b""
    if content != _FIRST:
        raise BadInput(
            f"{uri} was written, but different content is read back: use strongly consistent "
            "storage"
        )


def _check_conditional_put(store: Store, uri: str, findings: Findings) -> None:
    """Find whether a second writer of an object is refused."""
    where = store.storage.endpoint or store.storage.uri
    try:
        second_wins = store.put_if_absent(uri, _FIRST) and store.put_if_absent(uri, _SECOND)
    except BadInput as error:
        if not store.storage.uri.startswith("s3://"):
            raise
        findings.problem(
            _FIELD,
            f"{where} rejects conditional writes (If-None-Match), which selfemo needs to detect "
            f"concurrent attempts of a stage ({_reason(error)}): use a server that supports them",
        )
        return
    if second_wins:
        findings.problem(
            _FIELD,
            f"{where} ignores the condition of conditional writes (If-None-Match), which selfemo "
            "needs to detect concurrent attempts of a stage: use a server that supports it",
        )


def _check_replacement(store: Store, uri: str, findings: Findings) -> None:
    """Find whether an object is replaced if it is the one that was read."""
    try:
        replaced = store.replace(uri, _SECOND, _FIRST)
    except BadInput as error:
        if not store.storage.uri.startswith("s3://"):
            raise
        reason = f" ({_reason(error)})"
    else:
        if replaced:
            return
        reason = ""
    findings.problem(
        _FIELD,
        f"{store.storage.endpoint or store.storage.uri} rejects conditional writes (If-Match), "
        f"which prevent a late attempt from replacing the best model{reason}: use a server that "
        "supports them",
    )


def _remove(store: Store, place: str, findings: Findings) -> None:
    """Remove the object. Where that is not allowed, the run can go on if it removes no models."""
    keep = store.storage.keep
    try:
        store.remove(place)
    except (BadInput, ObjectNotFound) as error:
        if keep is not Keep.ALL:
            findings.problem(
                "storage.keep",
                f"is {keep.value}, but objects may not be removed from {place} "
                f"({_reason(error)}): grant that permission, or set All",
            )
            return
        findings.warning(
            _FIELD, f"the objects of this check could not be removed from {place}: {_reason(error)}"
        )
    except Unavailable as error:
        log.info("%s was not removed: %s", place, error)


@contextmanager
def _named(folder: str, place: str) -> Iterator[None]:
    """Return a context whose errors name the folder, and not the object of this check in it."""
    inner = re.compile(re.escape(place.removeprefix(folder)) + r"(?:/plain|/conditional)?")
    try:
        yield
    except (BadInput, Unavailable) as error:
        raise type(error)(inner.sub("", str(error))) from error


@contextmanager
def _without_new_folders(folder: str) -> Iterator[None]:
    """Return a context at whose end the folders that it made are removed, if they are empty."""
    missing: list[Path] = []
    if folder.startswith("file://"):
        path = file_path(folder)
        missing = [part for part in (path, *path.parents) if not part.exists()]
    try:
        yield
    finally:
        for part in missing:
            with contextlib.suppress(OSError):
                part.rmdir()


def _reason(error: Exception) -> str:
    """Return the reason that a server gives: its code, and what it says."""
    cause = error.__cause__
    response = getattr(cause, "response", {})
    details = response.get("Error", {}) if isinstance(response, dict) else {}
    text = f"{details.get('Code')}: {details.get('Message')}" if details else str(error)
    return error_line(text)
