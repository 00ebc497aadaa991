"""Seeds: every random choice of a run follows from `spec.seed`."""

from __future__ import annotations

import hashlib

from selfemo_api.stages import Stage


def stage_seed(seed: int, generation: int, stage: Stage) -> int:
    """Return a stage's seed (31 bits), the same on every machine.

    SHA-256 of the run's seed, the generation and the stage: neighbouring seeds share nothing.
    """
    digest = hashlib.sha256(f"{seed}/{generation}/{stage.value}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
