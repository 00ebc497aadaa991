"""A shifted clock for an operator: a library that the C compiler makes, loaded before libc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")


def shifted(seconds: int, folder: Path) -> dict[str, str] | None:
    """Return the environment of a process whose time of day is shifted.

    Parameters
    ----------
    seconds
        The shift; negative: into the past.
    folder
        The folder for the library, which is made once.

    Returns
    -------
    dict or None
        The variables. None: this machine has no C compiler.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "clock.so"
    if not library.is_file() or library.stat().st_mtime < _SOURCE.stat().st_mtime:
        made = library.with_suffix(".new")
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        made.replace(library)
    return {"LD_PRELOAD": str(library), "CAMPAIGN_CLOCK_SECONDS": str(seconds)}
