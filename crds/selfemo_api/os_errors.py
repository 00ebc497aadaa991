"""Operating system errors that users can fix: a full disk, missing file permissions."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from selfemo_api.contract import ExitCode

_FULL = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full (quota)",
    errno.EFBIG: "file too large",
}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_WRONG_PLACE = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
#: The errors of a network file system while its server is unavailable.
_UNAVAILABLE = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.ENOLINK,
    errno.ENOTCONN,
}
#: The errors of `flock` on a file system without locks.
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EBADF})
#: An error of the operating system in the text of a Rust library: tokenizers, safetensors.
RUST_ERRNO = re.compile(r"\(os error (\d+)\)")


def reported_os_error(error: BaseException) -> OSError | None:
    """Return an error as an operating system error, also if a Rust library reports it as text.

    Parameters
    ----------
    error
        The error.

    Examples
    --------
    >>> reported_os_error(Exception("I/O error: No space left on device (os error 28)"))
    OSError(28, 'No space left on device')
    >>> reported_os_error(ValueError("no such key")) is None
    True
    """
    if isinstance(error, OSError):
        return error
    kind = type(error)
    if kind not in (Exception, RuntimeError) and not kind.__module__.startswith("safetensors"):
        return None  # an error with its own text may quote another one
    number = RUST_ERRNO.search(str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def os_error_advice(error: OSError, path: Path | str | None = None) -> tuple[str, ExitCode] | None:
    """Return a message with advice and the exit code of an error; None if there is no advice.

    Parameters
    ----------
    error
        The error.
    path
        The path that the message names. If None, the path of the error is used. Without a path,
        there is advice only for a full disk.

    Examples
    --------
    >>> message, code = os_error_advice(OSError(errno.EISDIR, "Is a directory", "/data"))
    >>> message, int(code)
    ('/data: Is a directory: choose another location', 2)
    >>> os_error_advice(OSError(errno.ECONNREFUSED, "Connection refused")) is None
    True
    """
    path = error.filename if path is None else path
    reason = error.strerror or str(error)
    where = "" if path is None else f"{os.fsdecode(path)}: "
    if error.errno in _FULL:
        advice = "free space or choose another location, then run the same command again"
        return f"{where}{_FULL[error.errno]}: {advice}", ExitCode.BAD_INPUT
    if path is None:
        return None
    if error.errno in _DENIED:
        advice = f"grant this user ({os.geteuid()}) permission, or choose another location"
        return f"{where}{reason}: {advice}", ExitCode.BAD_INPUT
    if error.errno in _WRONG_PLACE:
        return f"{where}{reason}: choose another location", ExitCode.BAD_INPUT
    if error.errno in _UNAVAILABLE:
        advice = "the file system is unavailable; run the same command again"
        return f"{where}{reason}: {advice}", ExitCode.UNAVAILABLE
    return None
