"""The code with which a row ran, noted in the row's folder."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from selfemo_api.text.files import write_atomically
from selfemo_jobs.store.hashing import file_sha256, sha256

#: In the folder of a row: the SHA-256 of the code of each start of its run.
CODE = "code.txt"
#: The packages whose code a result follows from.
_PACKAGES = ("selfemo_api", "selfemo_jobs")


@cache
def code_sha256() -> str:
    """Return the SHA-256 of the code that results follow from."""
    lines = []
    for package in _PACKAGES:
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".yaml", ".j2", ".jinja"):
                lines.append(f"{package}/{path.relative_to(root).as_posix()} {file_sha256(path)}")
    return sha256("\n".join(lines).encode())


def note_code(folder: Path) -> None:
    """Add the code of this start to those of a row's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    codes = sorted(noted_code(folder) | {code_sha256()})
    write_atomically(folder / CODE, "\n".join(codes) + "\n")


def noted_code(folder: Path) -> set[str]:
    """Return the code of each start of a row; none where it was not noted."""
    file = folder / CODE
    return set(file.read_text().split()) if file.is_file() else set()
