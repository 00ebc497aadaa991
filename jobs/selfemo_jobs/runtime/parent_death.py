"""Ties a process's life to the one that started it, so that no stage works on unseen."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from selfemo_api.contract import ENV_PARENT, ExitCode

#: Linux, <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel for SIGKILL when the parent dies; end at once if it already has.

    Parameters
    ----------
    parent
        Process id that must be the parent. None: the one in ``SELFEMO_PARENT``; where that is not
        set (a pod) nothing is done.
    """
    if parent is None:
        named = os.environ.get(ENV_PARENT)
        if named is None:
            return
        parent = int(named)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(ExitCode.TERMINATED)
