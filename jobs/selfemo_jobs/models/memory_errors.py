"""A lack of memory while a model computes, as an error that names what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from selfemo_jobs.errors import StageError, error_line


@contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turn PyTorch's error about memory into one that says what to do. Also a decorator.

    Another attempt may succeed, on a GPU that no other process uses. So it is not bad input.

    Parameters
    ----------
    advice
        The settings that take less memory.

    Raises
    ------
    StageError
        If a GPU has no memory left.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StageError(f"{error_line(error)} ({advice})") from error
