"""A lack of memory names the settings to change; other errors stay as they are."""

from __future__ import annotations

import pytest
import torch

from selfemo_jobs.errors import StageError
from selfemo_jobs.models.memory_errors import memory_advice


@memory_advice("lower `batchSize`")
def fail(error: Exception) -> None:
    raise error


def test_the_advice_follows_the_error() -> None:
    with pytest.raises(StageError) as raised:
        fail(torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB."))
    assert type(raised.value) is StageError
    text = "CUDA out of memory. Tried to allocate 2.00 GiB (lower `batchSize`)"
    assert str(raised.value) == text


def test_another_error_stays() -> None:
    with pytest.raises(RuntimeError, match=r"^shapes differ$"):
        fail(RuntimeError("shapes differ"))
