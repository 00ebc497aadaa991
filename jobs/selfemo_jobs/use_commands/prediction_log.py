"""The file beside an output file with the turns that were predicted so far.

``selfemo predict … --to FILE`` writes ``FILE.partial``, and at its end ``FILE`` from it. Killed at
any instruction, the same command continues from the last part that was written as a whole.

The file is JSON Lines. The first line is an object with the key ``request``: what the predictions
follow from. Then come parts: a line for each turn, and a line with the key ``commit``. It has the
number of turns so far, and the SHA-256 of the lines of the part.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.runtime.closing import Closing
from selfemo_jobs.store.local_files import fsync_file, fsync_folder, translated_errors
from selfemo_jobs.use_commands.prediction_rows import PredictedTurn

#: The ending that is added to the name of the output file.
ENDING = ".partial"
#: The beginnings of the first line, and of the line at the end of a part.
_FIRST, _COMMIT = b'{"request": ', b'{"commit": '


class PredictionLog(Closing):
    """The turns that were predicted so far. A context manager; only one process can have it open.

    Parameters
    ----------
    output
        The output file.
    request
        What the predictions follow from, by a name for messages: for example the hash of the
        model.

    Raises
    ------
    BadInput
        If the file is of another request, or it cannot be written.
    Unavailable
        If another process has it open.
    """

    def __init__(self, output: Path, request: Mapping[str, Any]) -> None:
        self.path = output.with_name(output.name + ENDING)
        self._request = dict(request)
        with translated_errors(self.path):
            self._file = self._open_locked()
            try:
                self.turns, self._end = self._recover()
                self._file.truncate(self._end)
            except BaseException:
                self._file.close()
                raise

    def close(self) -> None:
        """Close the file, which lets another process have it."""
        self._file.close()

    def append(self, turns: Sequence[PredictedTurn]) -> None:
        """Add a part. When this returns, it is on the disk as a whole.

        Parameters
        ----------
        turns
            The turns after those that are there.
        """
        lines = "".join(json.dumps(t.to_json(), ensure_ascii=False) + "\n" for t in turns).encode()
        total = self.turns + len(turns)
        commit = {"commit": {"turns": total, "sha256": hashlib.sha256(lines).hexdigest()}}
        with translated_errors(self.path):
            self._file.seek(self._end)
            self._file.write(lines + json.dumps(commit).encode() + b"\n")
            fsync_file(self._file)
            self._end = self._file.tell()
        self.turns = total

    def parts(self) -> Iterator[list[PredictedTurn]]:
        """Yield the turns of each part."""
        with self.path.open("rb") as file:
            file.readline()  # the request
            turns: list[PredictedTurn] = []
            while file.tell() < self._end:
                row = json.loads(file.readline())
                if "commit" in row:
                    yield turns
                    turns = []
                else:
                    turns.append(PredictedTurn.from_json(row))

    def remove(self) -> None:
        """Remove the file: the output is complete."""
        self.path.unlink()
        fsync_folder(self.path.parent)

    def _open_locked(self) -> BinaryIO:
        """Return the file, open and locked."""
        while True:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise Unavailable(
                    f"another process is writing {self.path}: wait for it, or choose another --to"
                ) from None
            try:
                if self.path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
            except FileNotFoundError:
                pass  # another process completed the output in between
            file.close()

    def _recover(self) -> tuple[int, int]:
        """Return the number of turns in whole parts, and the place where the last one ends."""
        first = self._file.readline()
        if not first.endswith(b"\n"):
            if not _FIRST.startswith(first[: len(_FIRST)]):
                raise self._foreign()
            return self._begin()  # the file is new, or it was interrupted in its first line
        self._check_request(first)
        turns, end, place = 0, len(first), len(first)
        digest = hashlib.sha256()
        for line in self._file:
            place += len(line)
            if not line.startswith(_COMMIT):
                digest.update(line)
                continue
            try:
                commit = json.loads(line)["commit"]
            except ValueError:
                break  # it was interrupted in this line
            if not line.endswith(b"\n") or commit["sha256"] != digest.hexdigest():
                break
            turns, end = commit["turns"], place
            digest = hashlib.sha256()
        return turns, end

    def _begin(self) -> tuple[int, int]:
        """Write the first line."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps({"request": self._request}).encode() + b"\n")
        fsync_file(self._file)
        fsync_folder(self.path.parent)
        return 0, self._file.tell()

    def _check_request(self, line: bytes) -> None:
        """Raise BadInput if the file is of another request."""
        try:
            earlier = json.loads(line)["request"]
            names = earlier.keys() | self._request.keys()
            different = sorted(n for n in names if earlier.get(n) != self._request.get(n))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._foreign() from None
        if different:
            raise BadInput(
                f"{self.path} was written by an interrupted command with different "
                f"{' and '.join(different)}: run that command again, delete the file to start "
                "over, or choose another --to"
            )

    def _foreign(self) -> BadInput:
        return BadInput(
            f"{self.path} was not written by `selfemo predict`: choose another --to, or delete it"
        )
