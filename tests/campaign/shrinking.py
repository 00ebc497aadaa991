"""Makes a scenario that fails smaller: fewer perturbations, then fewer evolutions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.campaign.model import Evolution, Perturbation, Scenario

T = TypeVar("T", Evolution, Perturbation)


def shrunk(
    scenario: Scenario, fails: Callable[[Scenario], bool], seconds: float = 1200.0
) -> Scenario:
    """Return the smallest scenario that was found to fail.

    Processes do not run in the same order each time, so a scenario may fail only sometimes. The
    result failed at least once.

    Parameters
    ----------
    scenario
        A scenario that fails.
    fails
        A function that runs a scenario and returns whether it fails in the same way.
    seconds
        The time after which no further scenario is tried.
    """
    deadline = time.monotonic() + seconds

    def tries(candidate: Scenario) -> bool:
        return time.monotonic() < deadline and fails(candidate)

    perturbations = _smallest(
        scenario.perturbations, lambda kept: tries(scenario.replaced(perturbations=kept))
    )
    scenario = scenario.replaced(perturbations=perturbations)
    targets = {p.target for p in perturbations}

    def fewer(kept: Sequence[Evolution]) -> bool:
        names = {evolution.name for evolution in kept}
        return bool(kept) and targets - {""} <= names and tries(scenario.replaced(evolutions=kept))

    return scenario.replaced(evolutions=_smallest(scenario.evolutions, fewer))


def _smallest(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> tuple[T, ...]:
    """Return a part of a sequence that still fails (delta debugging): halves, quarters, and so on.

    Parameters
    ----------
    items
        The whole sequence, which fails.
    fails
        A function that returns whether a part fails.
    """
    kept, parts = list(items), 2
    if kept and fails([]):
        return ()
    while len(kept) > 1:
        size = max(1, len(kept) // parts)
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            if rest and fails(rest):
                kept, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(kept), parts * 2)
    return tuple(kept)
