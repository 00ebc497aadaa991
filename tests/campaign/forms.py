"""The forms of scenarios, and how a scenario of each is generated from a seed and a number."""

from __future__ import annotations

import random

from tests.campaign.catalog import KINDS
from tests.campaign.field_values import drawn_edits
from tests.campaign.model import Evolution, Perturbation, Scenario
from tests.campaign.perturbations import PERTURBATIONS, drawn

#: Writes of the operator for each stage of an evolution: the status, the Job, Events.
_WRITES_PER_STAGE = 2.0
#: The forms of ten scenarios in a row.
_TURNS = (
    "mixed", "fields", "mixed", "lease", "mixed", "fields", "mixed", "clock", "mixed", "cold",
)  # fmt: skip
#: Every so many scenarios, a snapshot of etcd is restored instead.
_RESTORE_EVERY = 25
_ONLY_LEASE = ("leader-frozen", "lease-refused")
#: The evolutions of a cold start for each of an ordinary scenario.
_COLD = 3
FORMS = ("mixed", "fields", "lease", "clock", "cold", "restore", "purge")


def form_of(number: int) -> str:
    """Return the form of the scenario of a number.

    >>> form_of(0), form_of(3)
    ('mixed', 'lease')
    """
    if number % _RESTORE_EVERY == _RESTORE_EVERY - 1:
        return "restore"
    return _TURNS[number % len(_TURNS)]


def generated(
    number: int, seed: int, size: int, density: float, form: str | None = None
) -> Scenario:
    """Return the scenario that follows from a seed and a number.

    Parameters
    ----------
    number
        The number of the scenario.
    seed
        The seed of the campaign.
    size
        The number of evolutions.
    density
        The number of perturbations for each evolution.
    form
        The form. None: that of the number.
    """
    form = form or form_of(number)
    rng = random.Random(f"{seed}-{number}-{form}")
    if form == "fields":
        return _fields(number, seed, rng, size, density)
    size = size * _COLD if form == "cold" else size
    evolutions = _evolutions(rng, size, form)
    writes = int(_WRITES_PER_STAGE * sum(KINDS[e.kind].stages for e in evolutions))
    targets = [e.name for e in evolutions if not KINDS[e.kind].refused]
    count = max(1, round(size * density / (_COLD if form == "cold" else 1)))
    places = sorted(rng.randrange(2, max(3, writes)) for _ in range(count))
    kinds = _kinds(form)
    perturbations = [drawn(rng, at, targets, kinds) for at in places]
    if form == "lease":
        perturbations += [Perturbation("leader-frozen", writes // 3, "", 17)]
    if form == "restore":
        perturbations = [p for p in perturbations if p.at < writes // 2]
    return Scenario(number, seed, evolutions, tuple(perturbations), form)


def _kinds(form: str) -> list[str]:
    kinds = sorted(PERTURBATIONS.keys() - set(_ONLY_LEASE))
    if form == "lease":
        return sorted(PERTURBATIONS)
    if form == "purge":
        return ["retained-while-away", "retained-and-deleted", "kill-before-write", "lost-reply"]
    if form in ("restore", "clock"):
        return [kind for kind in kinds if kind != "second-operator"]
    return kinds


def _evolutions(rng: random.Random, size: int, form: str) -> tuple[Evolution, ...]:
    if form == "purge":
        kinds = rng.choices(["purged", "hostpath", "privileged"], [3, 1, 1], k=size)
    elif form == "cold":
        kinds = rng.choices(["plain", "purged", "bad"], [4, 1, 1], k=size)
    elif form == "restore":  # what is over need not come again after a restore
        kinds = rng.choices(["plain", "worse", "sharded", "hostpath"], [4, 2, 1, 1], k=size)
    else:
        kinds = rng.choices(list(KINDS), [kind.weight for kind in KINDS.values()], k=size)
    return tuple(Evolution(f"{kind}-{i}", rng.randrange(2)) for i, kind in enumerate(kinds))


def _fields(number: int, seed: int, rng: random.Random, size: int, density: float) -> Scenario:
    """Return a scenario in which each evolution has one or two fields changed, and set back."""
    count = round(size * density)
    evolutions = tuple(Evolution(f"field-{i}", i % 2) for i in range(count))
    perturbations = tuple(
        Perturbation("field", rng.randrange(2), e.name, index, drawn_edits(rng, number, index))
        for index, e in enumerate(evolutions)
    )
    return Scenario(number, seed, evolutions, perturbations, "fields")
