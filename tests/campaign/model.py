"""What a scenario is: evolutions, perturbations, and the verdict on them. All of it is JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Evolution:
    """One evolution of a scenario.

    Attributes
    ----------
    name
        Its name: the kind and a number, such as `plain-3`.
    namespace
        The number of its namespace, 0 or 1.
    """

    name: str
    namespace: int = 0

    @property
    def kind(self) -> str:
        """The kind, a key of `catalog.KINDS`."""
        return self.name.rpartition("-")[0]


@dataclass(frozen=True)
class Perturbation:
    """One thing that goes wrong, or that a user does.

    Attributes
    ----------
    kind
        A key of `perturbations.PERTURBATIONS`.
    at
        The number of the operator's write at which it happens: the campaign's clock.
    target
        The name of an evolution, for perturbations of one evolution.
    amount
        A number that the kind interprets, such as a status code or seconds.
    data
        A text that the kind interprets.
    """

    kind: str
    at: int
    target: str = ""
    amount: int = 0
    data: str = ""


@dataclass(frozen=True)
class Scenario:
    """Evolutions that run at the same time under one operator, and what goes wrong meanwhile."""

    number: int
    seed: int
    evolutions: tuple[Evolution, ...]
    perturbations: tuple[Perturbation, ...]
    form: str = "mixed"

    def to_json(self) -> Json:
        """Return the scenario as JSON."""
        return dataclasses.asdict(self)

    def replaced(
        self,
        evolutions: Sequence[Evolution] | None = None,
        perturbations: Sequence[Perturbation] | None = None,
    ) -> Scenario:
        """Return the scenario with other evolutions or perturbations."""
        return dataclasses.replace(
            self,
            evolutions=self.evolutions if evolutions is None else tuple(evolutions),
            perturbations=self.perturbations if perturbations is None else tuple(perturbations),
        )


def scenario_from(document: Json) -> Scenario:
    """Return the scenario that a document describes."""
    return Scenario(
        number=document["number"],
        seed=document["seed"],
        form=document.get("form", "mixed"),
        evolutions=tuple(Evolution(**item) for item in document["evolutions"]),
        perturbations=tuple(Perturbation(**item) for item in document["perturbations"]),
    )


@dataclass(frozen=True)
class Violation:
    """One check that did not hold.

    Attributes
    ----------
    oracle
        The name of the check.
    text
        What was observed, and what was expected.
    target
        The evolution, if it is about one.
    """

    oracle: str
    text: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.oracle}: {self.target + ': ' if self.target else ''}{self.text}"


@dataclass
class Verdict:
    """The result of one scenario."""

    scenario: Scenario
    violations: list[Violation] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    """The kinds of the perturbations that took place."""
    checks: int = 0
    """The number of comparisons that the oracles made."""
    seconds: float = 0.0
    facts: Json = field(default_factory=dict)

    def to_line(self) -> str:
        """Return the verdict as one line of JSON."""
        document = {
            "scenario": self.scenario.to_json(),
            "verdict": "violated" if self.violations else "held",
            "violations": [dataclasses.asdict(v) for v in self.violations],
            "applied": self.applied,
            "checks": self.checks,
            "seconds": round(self.seconds, 1),
            "facts": self.facts,
        }
        return json.dumps(document, ensure_ascii=False)
