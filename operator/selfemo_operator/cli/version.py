"""The version of selfemo, and of what it was installed from."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

import typer


def selfemo_version() -> str:
    """Return the version of the package; ``unknown`` if it is not installed."""
    try:
        return version("selfemo")
    except PackageNotFoundError:
        return "unknown"


def print_version(value: bool) -> None:
    """Print the version and exit, if the option is given.

    Parameters
    ----------
    value
        Whether the option is given.
    """
    if value:
        sys.stdout.write(f"selfemo {selfemo_version()}\n")
        raise typer.Exit
