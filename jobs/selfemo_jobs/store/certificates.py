"""Certificates of servers that are not trusted, and files of certificates that are missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: What OpenSSL reports for a certificate that no trusted authority has signed.
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def is_untrusted(error: BaseException) -> bool:
    """Return whether an error, or one that caused it, is a certificate that is not trusted.

    Examples
    --------
    >>> is_untrusted(OSError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"))
    True
    """
    return any(_UNTRUSTED in str(cause) for cause in _with_causes(error))


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
            return f"{name} is {value}, which does not exist: fix the variable, or unset it"
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
