"""A path for the model of an engine that stays the same from generation to generation.

vLLM keeps what it has compiled in a cache, and finds it by a hash of all settings, the path of the
model among them. The models of a run differ in their weights alone, which are not compiled in, but
each has a folder of its own. Without a common path, each start of a stage would compile again.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

#: Processes of one machine that load models at the same time, each with a path of its own.
_SLOTS = 64


class ModelSlot:
    """A symbolic link to a model's folder, for as long as an engine uses it.

    Of several processes that use models at the same time, each gets a link of its own: the first
    one that is free. Where no link can be made, the path is that of the folder.

    Parameters
    ----------
    folder
        The model's folder.
    root
        The folder of the links. It need not exist. None: there is no link.
    """

    def __init__(self, folder: Path, root: Path | None) -> None:
        self._handle: int | None = None
        self.path = folder
        """The path that the engine gets."""
        if root is None:
            return
        for number in range(_SLOTS):
            slot = root / str(number)
            try:
                slot.mkdir(parents=True, exist_ok=True)
                handle = os.open(slot / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError:
                return
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.path = _link(slot / "model", folder)
            except BlockingIOError:
                os.close(handle)
                continue
            except OSError:
                os.close(handle)
                return
            self._handle = handle  # the kernel gives the lock back, however the process ends
            return

    def close(self) -> None:
        """Give the link back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _link(path: Path, folder: Path) -> Path:
    """Make a path lead to a folder, whatever it leads to now."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(folder.resolve(), target_is_directory=True)
    new.replace(path)
    return path
