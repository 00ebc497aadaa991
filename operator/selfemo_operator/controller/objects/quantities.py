"""Quantities of resources, such as `500m` or `2Gi`. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_FORM = re.compile(
    r"(?P<number>[+-]?(?:[0-9]{1,32}(?:\.[0-9]{0,32})?|\.[0-9]{1,32}))"
    r"(?:[eE](?P<exponent>[+-]?[0-9]{1,2})|(?P<suffix>[KMGTPE]i|[numkMGTPE]?))"
)


def quantity(value: Any) -> Decimal | None:
    """Return the number that a quantity of Kubernetes stands for, or None if it is not a quantity.

    Parameters
    ----------
    value
        A value of `resources`: a text or a number.

    Examples
    --------
    >>> quantity("500m"), quantity("2Gi") > quantity("2G"), quantity(3) == quantity("3e0")
    (Decimal('0.500'), True, True)
    >>> quantity("much") is None
    True
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    match = _FORM.fullmatch(str(value))
    if match is None:
        return None
    number = Decimal(match["number"])
    if match["exponent"] is not None:
        return number.scaleb(int(match["exponent"]))
    suffix = match["suffix"]
    return number * 2 ** _BINARY[suffix] if suffix in _BINARY else number.scaleb(_DECIMAL[suffix])
