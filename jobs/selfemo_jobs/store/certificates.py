"""Certificates of servers that are not trusted, and files of certificates that are missing."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

#: What OpenSSL, and the library that the hub's downloads use, report for a certificate that no
#: trusted authority has signed, that has expired, or that is for another host.
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "invalid peer certificate")


def is_untrusted(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, is a certificate that is not trusted.

    Examples
    --------
    >>> is_untrusted(OSError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"))
    True
    """
    return any(text in str(cause) for cause in _with_causes(error) for text in _UNTRUSTED)


def missing_file(*variables: str) -> str | None:
    """Return what is wrong with the first variable that names a missing file, or None.

    Parameters
    ----------
    *variables
        Names of environment variables whose values are paths of files.
    """
    for name in variables:
        value = os.environ.get(name, "")
        if value and not Path(value).exists():
            return f"{name} is {value}, which does not exist: fix or unset the variable"
    return None


def unreadable_certificates(path: Path) -> str | None:
    """Return why certificates cannot be read from a file or a folder, or None.

    Parameters
    ----------
    path
        The file, or the folder with files.
    """
    if not path.exists():
        return "it does not exist"
    if path.is_dir():
        return None
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        return "it contains no certificates (PEM)"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it, also those that its arguments hold."""
    rest, known = [error], set[int]()
    while rest:
        cause = rest.pop()
        if id(cause) in known:
            continue
        known.add(id(cause))
        yield cause
        before = (cause.__cause__, cause.__context__, getattr(cause, "last_exception", None))
        rest += [e for e in before if isinstance(e, BaseException)]
