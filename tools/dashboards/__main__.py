"""Writes the JSON files of the dashboards: ``python -m tools.dashboards [--check]``."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.dashboards.boards import BOARDS
from tools.dashboards.build import to_json

FOLDER = Path(__file__).resolve().parents[2] / "helm" / "selfemo" / "files" / "dashboards"


def main() -> int:
    """Write the files, or with ``--check`` compare them; return the exit code."""
    boards = {FOLDER / f"{board.uid.removeprefix('selfemo-')}.json": board for board in BOARDS}
    if "--check" not in sys.argv[1:]:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path, board in boards.items():
            path.write_text(to_json(board))
        return 0
    stale = {p.name for p in set(FOLDER.glob("*.json")) - set(boards)}
    stale |= {p.name for p, b in boards.items() if not p.is_file() or p.read_text() != to_json(b)}
    for name in sorted(stale):
        sys.stderr.write(f"{name} is stale: run `make generate` and commit it\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
