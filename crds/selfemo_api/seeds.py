"""Seeds: every random choice of a run is derived from ``spec.seed``.

A seed is derived from another seed and from names that specify what it is used for. The names are
part of the result: if one changes, every run with the same seed changes.
"""

from __future__ import annotations

import hashlib

from selfemo_api.spec import Role
from selfemo_api.stages import Stage

#: The name of each role in seeds and in group ids. The spelling is from the first release, so
#: that the published studies are reproducible from their seeds.
ROLE_STREAMS = {Role.RECOGNIZER: "Recogniser", Role.RESPONDER: "Responder"}


def derive_seed(seed: int, *names: object, bits: int = 31) -> int:
    """Return a derived seed, the same on every machine.

    Parameters
    ----------
    seed
        The seed from which the result is derived.
    names
        The names that specify what the result is used for. Results for different names are
        independent.
    bits
        The size of the result in bits, at most 64.

    Notes
    -----
    The result is the first bits of the SHA-256 of ``seed/name/name…``. This derivation is ours.

    Examples
    --------
    >>> derive_seed(7, "dialogues") == derive_seed(7, "dialogues")
    True
    >>> derive_seed(7, "dialogues") == derive_seed(7, "order")
    False
    """
    text = "/".join([str(seed), *(str(name) for name in names)])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


def stage_seed(seed: int, generation: int, stage: Stage) -> int:
    """Return the seed of a stage (31 bits).

    Parameters
    ----------
    seed
        The seed of the run, ``spec.seed``.
    generation
        The number of the generation.
    stage
        The stage.

    Examples
    --------
    >>> stage_seed(7, 1, Stage.SCORE) == derive_seed(7, 1, "Score")
    True
    """
    return derive_seed(seed, generation, stage.value)
