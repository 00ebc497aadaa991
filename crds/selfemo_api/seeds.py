"""Seeds: every random choice of a run follows from ``spec.seed``.

A seed is derived from another seed and the names of what it is used for. These names are part of
the result: a change of one changes every run of the same seed.
"""

from __future__ import annotations

import hashlib

from selfemo_api.spec import Role
from selfemo_api.stages import Stage

#: The name of each role in seeds and in group ids. It is spelled as in the first release, so that
#: the published studies can be repeated from their seeds.
ROLE_STREAMS = {Role.RECOGNIZER: "Recogniser", Role.RESPONDER: "Responder"}


def derive_seed(seed: int, *names: object, bits: int = 31) -> int:
    """Return the seed of one use of randomness, the same on every machine.

    Parameters
    ----------
    seed
        The seed that it is derived from.
    names
        What it is used for. Seeds with different names are independent.
    bits
        Size of the result, at most 64.

    Notes
    -----
    Ours: the first bits of the SHA-256 of ``seed/name/name…``.

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
    """Return a stage's seed (31 bits).

    Parameters
    ----------
    seed
        ``spec.seed``.
    generation
        The generation's number.
    stage
        The stage.
    """
    return derive_seed(seed, generation, stage.value)
