"""Ends a process when its parent dies, so that no stage continues unnoticed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from selfemo_api.contract import ENV_PARENT, ExitCode

#: Linux, <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Let the kernel send SIGKILL when the parent dies; exit at once if it has already died.

    Parameters
    ----------
    parent
        The process id of the parent. None: the value of ``SELFEMO_PARENT``. Where that is not set,
        as in a pod, nothing is done.
    """
    if parent is None:
        value = os.environ.get(ENV_PARENT)
        if value is None:
            return
        parent = int(value)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(ExitCode.TERMINATED)
