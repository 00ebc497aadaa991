"""The estimate of `selfemo check` as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TOKENS = ("read", "generated", "trained")


def estimate_lines(estimate: Mapping[str, Any]) -> list[str]:
    """Return what a run takes, as lines.

    Parameters
    ----------
    estimate
        The JSON object of the estimate, as the check's program prints it.
    """
    stages, storage = estimate["stages"], estimate["storage"]
    cluster, device = estimate["kubernetes"], estimate["device"]
    table = [("stage", "tokens read", *_TOKENS[1:], *(["GPU hours"] if device else []))]
    for name, stage in stages.items():
        hours = [f"{stage['gpuHours']:.2f}"] if device else []
        table.append((name, *(short_count(stage[kind]) for kind in _TOKENS), *hours))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    generations = estimate["generations"]
    head = f"{generations} generation{'' if generations == 1 else 's'} at most"
    if device:
        head += f": about {estimate['gpuHours']:.1f} hours of one {device}"
    return [
        head,
        *(_row(row, widths) for row in table),
        f"storage: {short_bytes(storage['writtenBytes'])} written, "
        f"{short_bytes(storage['storedBytes'])} of it kept; {short_bytes(storage['readBytes'])} "
        f"read; about {storage['requests']:,} requests",
        f"stages: {cluster['jobs']} Jobs, {cluster['pods']} pods, about {cluster['writes']} "
        f"operator writes; models are loaded {estimate['engineStarts']} times",
    ]


def short_count(number: float) -> str:
    """Return a number of tokens in short.

    Parameters
    ----------
    number
        The number.

    Examples
    --------
    >>> [short_count(number) for number in (0, 950, 1_234_567, 2.5e9)]
    ['-', '950', '1.2 M', '2.5 G']
    """
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number:.0f}" if number else "-"


def short_bytes(number: float) -> str:
    """Return a number of bytes in short.

    Parameters
    ----------
    number
        The number.

    Examples
    --------
    >>> [short_bytes(number) for number in (512, 3 << 20, 5 << 40)]
    ['512 bytes', '3.0 MiB', '5.0 TiB']
    """
    for power, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 1 << power:
            return f"{number / (1 << power):.1f} {name}"
    return f"{number:.0f} bytes"


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *rest = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join([first, *rest])
