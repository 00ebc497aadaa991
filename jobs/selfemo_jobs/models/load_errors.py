"""Errors while a model is loaded: which pass by themselves, and which are about the model. Pure."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from selfemo_api.os_errors import RUST_ERRNO
from selfemo_jobs.errors import StageError, Unavailable, error_line

#: Errors of a GPU, its driver or its memory, and of processes that load together, as PyTorch, CUDA,
#: ROCm, NCCL and vLLM word them. A GPU may be busy with another process, or faulty.
_DEVICE = re.compile(
    r"out of memory|(?:cannot|can't) allocate memory|not enough memory|bad_?alloc"
    r"|(?:cuda|hip|xpu|cudnn|cublas|nccl|rccl|nvml)\b[\w ]*\b(?:error|fail\w*)"
    r"|CUBLAS_STATUS|CUDNN_STATUS|NVML_ERROR|DistBackendError|DeferredCudaCall"
    r"|no (?:cuda|hip) gpus are available|found no nvidia driver|driver version is insufficient"
    r"|uncorrectable ecc|fallen off the bus|devices? (?:is|are) busy|is busy or unavailable"
    r"|free memory on device|error in memory profiling|initial free memory"
    r"|address already in use|connection (?:reset|refused|closed)|timed out",
    re.IGNORECASE,
)
#: Errors of a device about which no other attempt can differ.
_LASTING = re.compile(r"no kernel image|invalid device ordinal|invalid argument", re.IGNORECASE)
#: The operating system's errors that pass by themselves.
_PASSING_ERRNO = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOLINK, errno.ENOTCONN),
        *(errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.EMFILE, errno.ENFILE, errno.EINTR),
        *(errno.ECONNRESET, errno.ECONNREFUSED, errno.EADDRINUSE, errno.EPIPE),
    }
)


def is_transient_load_error(error: BaseException) -> bool:
    """Return whether a model may load at another attempt, without a user fix.

    Parameters
    ----------
    error
        The error that a library raised. Its causes are looked at, too.

    Examples
    --------
    >>> is_transient_load_error(RuntimeError("CUDA error: device is busy or unavailable"))
    True
    >>> is_transient_load_error(Exception("Input/output error (os error 5)"))
    True
    >>> is_transient_load_error(ValueError("no such argument: max_len"))
    False
    """
    cause: BaseException | None = error
    while cause is not None:
        text = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, MemoryError):
            return True
        if isinstance(cause, OSError) and cause.errno in _PASSING_ERRNO:
            return True
        number = RUST_ERRNO.search(text)
        if number and int(number[1]) in _PASSING_ERRNO:
            return True
        if _DEVICE.search(text) and not _LASTING.search(text):
            return True
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def passing_load_error(folder: Path, error: BaseException) -> StageError | None:
    """Return the error of a stage whose model may load at another attempt; None if it cannot.

    Parameters
    ----------
    folder
        The model's folder.
    error
        The error that a library raised.
    """
    if not is_transient_load_error(error):
        return None
    return Unavailable(
        f"{folder} could not be loaded: {error_line(error)}: the GPU, the memory or the disk was "
        "not available; run the same command again; if that does not help, use another GPU or "
        "node"
    )
