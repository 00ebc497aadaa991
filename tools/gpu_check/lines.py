"""The lines that the parts write, and the settings that they share."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The published or measured figures of the device, which the first part writes.
DEVICE_FILE = "device.json"


@dataclass(frozen=True)
class Settings:
    """What a part is started with."""

    folder: Path
    """A scratch folder that all parts share."""
    device: str
    """``cuda`` or ``cpu``."""
    shape: str
    """The size of the model whose speed is measured: ``tiny``, or a name in ``QWEN3``."""
    model: Path | None
    """A model to use in place of one with random weights."""
    results: Path
    """The file for the lines."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device == "cuda"

    def write(self, name: str, **fields: Any) -> None:
        """Write the line of a check.

        Parameters
        ----------
        name
            The name of the check.
        **fields
            Its figures. ``holds`` is true, false, or None where the check could not run.
        """
        line = json.dumps({"name": name, "device": self.device, **fields})
        with self.results.open("a") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)

    def skip(self, name: str, reason: str) -> None:
        """Write that a check cannot run on this machine."""
        self.write(name, holds=None, skipped=reason)

    def reaches(self, value: float, goal: float) -> bool | None:
        """Return whether a speed reaches its goal; None on a processor, where it means nothing.

        The small model takes so little time there that the work around it counts, and other work
        of the machine too.
        """
        return value >= goal if self.on_gpu else None

    @property
    def peak(self) -> dict[str, float]:
        """``flops`` and ``bytes``: what the device can do in a second."""
        figures: dict[str, float] = json.loads((self.folder / DEVICE_FILE).read_text())
        return figures
