"""Values as a person says them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return seconds as a person says them: ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share(part: float, whole: float) -> float:
    """Return a part in per cent of the whole; 0 of nothing."""
    return 100.0 * part / whole if whole else 0.0
