"""Numbers in plain scalars of YAML, as kubectl reads them. Pure."""

from __future__ import annotations

import math
import re

#: The maximum length of a number in characters. A float that is written out has at most 60 or so.
MAX_NUMBER = 128
_BASES = (16, 8, 2, 10)
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[oO]?([0-7]+)|0[bB]([01]+)|(0|[1-9][0-9]*))")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LONG_NUMBER = re.compile(r"[-+.]?[0-9][0-9a-fA-FxXoO_.+-]*")


def plain_number(text: str) -> int | float | None:
    """Return the number that kubectl reads from a plain scalar; None if it reads no number.

    The rules are those of ``sigs.k8s.io/yaml``: integers as Go writes them, of at most 64 bits, and
    decimal numbers. Underscores are left out. Infinity and NaN are not JSON, and not read here.

    Parameters
    ----------
    text
        The scalar, without quotes.

    Examples
    --------
    >>> [plain_number(text) for text in ("08", "010", "1e6", "0x1F", "1:30", "1e400")]
    [8.0, 8, 1000000.0, 31, None, None]
    """
    if len(text) > MAX_NUMBER:
        return 0 if _LONG_NUMBER.fullmatch(text) else None  # its constructor rejects it
    if text[:1] not in set("+-.0123456789"):
        return None
    plain = text if text.startswith(".") else text.replace("_", "")
    if found := _INTEGER.fullmatch(plain):
        sign, *digits = found.groups()
        base, written = next((b, d) for b, d in zip(_BASES, digits, strict=True) if d is not None)
        value = int(written, base) * (-1 if sign == "-" else 1)
        if -(2**63) <= value < 2**64:
            return value
    if _DECIMAL.fullmatch(plain):
        number = float(plain)
        return number if math.isfinite(number) else None
    return None
