"""Published figures of GPUs: what a run's cost is estimated from. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """The figures of one GPU, as its maker publishes them."""

    name: str
    """The name, in short."""
    teraflops: float
    """Products of bfloat16 without sparsity, in 10^12 floating-point operations a second."""
    bandwidth: float
    """The bandwidth of its memory, in 10^9 bytes a second."""
    memory: int
    """The size of its memory, in 10^9 bytes."""


#: Data sheets of NVIDIA and AMD. Where a sheet has the figure with sparsity, it is halved.
DEVICES = (
    Device("H200", 989.0, 4800.0, 141),
    Device("H100", 989.0, 3350.0, 80),
    Device("A100", 312.0, 2039.0, 80),
    Device("L40S", 362.0, 864.0, 48),
    Device("L4", 121.0, 300.0, 24),
    Device("MI300X", 1307.0, 5300.0, 192),
)
#: The device of an estimate where the one at hand is not known.
USUAL = DEVICES[1]


def find_device(name: str) -> Device | None:
    """Return the figures of a GPU by the name that its driver reports; None if they are not known.

    Parameters
    ----------
    name
        The name, for example ``NVIDIA H100 80GB HBM3``.

    Examples
    --------
    >>> device = find_device("NVIDIA H100 80GB HBM3")
    >>> device.name if device else None
    'H100'
    >>> find_device("Tesla T4") is None
    True
    """
    words = re.split(r"[^A-Z0-9]+", name.upper())
    return next((device for device in DEVICES if device.name in words), None)
