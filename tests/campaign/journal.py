"""The journal of a campaign: one JSON line for each scenario, from which a campaign resumes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaign.model import Scenario, Verdict, scenario_from

Json = dict[str, Any]


@dataclass
class Totals:
    """The sums over a journal."""

    scenarios: int = 0
    perturbations: int = 0
    checks: int = 0
    seconds: float = 0.0
    evolutions: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    violated: list[int] = field(default_factory=list)

    def add(self, document: Json) -> None:
        """Add the line of a scenario."""
        self.scenarios += 1
        self.perturbations += len(document["applied"])
        self.checks += document["checks"]
        self.seconds += document["seconds"]
        self.evolutions += len(document["scenario"]["evolutions"])
        self.kinds.update(document["applied"])
        if document["violations"]:
            self.violated.append(document["scenario"]["number"])

    def text(self) -> str:
        """Return the sums as a line."""
        return (
            f"{self.scenarios} scenarios with {self.evolutions} evolutions, {self.perturbations} "
            f"perturbations of {len(self.kinds)} kinds, {self.checks} checks; violated: "
            f"{len(self.violated)} {sorted(self.violated)[:20]}"
        )


class Journal:
    """A file of verdicts. Thread-safe.

    Parameters
    ----------
    path
        The file, which is created or continued.
    settings
        What scenarios follow from, besides their number. A file of other settings is refused.
    """

    def __init__(self, path: Path, settings: Json) -> None:
        self.path = path
        self.totals = Totals()
        self.done: set[int] = set()
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.is_file() else []
        if not lines:
            self._append(json.dumps({"settings": settings}))
        elif json.loads(lines[0]).get("settings") != settings:
            raise ValueError(f"{path} has other settings: {lines[0]}; give another --journal")
        for line in lines[1:]:
            document = _whole(line)
            if document is not None:
                self.done.add(document["scenario"]["number"])
                self.totals.add(document)

    def add(self, verdict: Verdict) -> None:
        """Append a verdict."""
        line = verdict.to_line()
        with self._lock:
            self._append(line)
            self.done.add(verdict.scenario.number)
            self.totals.add(json.loads(line))

    def _append(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(line + "\n")


def _whole(line: str) -> Json | None:
    """Return the document of a line, or None if its writing was interrupted."""
    try:
        document: Json = json.loads(line)
    except ValueError:
        return None
    return document


def read_scenario(text: str) -> Scenario:
    """Return the scenario of a JSON file, or of a place in a journal.

    Parameters
    ----------
    text
        The path of a file with one scenario, or `JOURNAL:NUMBER`.
    """
    path, _, number = text.rpartition(":")
    if number.isdigit() and path:
        for line in Path(path).read_text().splitlines()[1:]:
            document = _whole(line)
            if document and document["scenario"]["number"] == int(number):
                return scenario_from(document["scenario"])
        raise ValueError(f"{path} has no scenario {number}")
    return scenario_from(json.loads(Path(text).read_text()))
