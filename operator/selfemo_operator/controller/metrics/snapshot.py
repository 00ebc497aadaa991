"""A snapshot of an evolution for the readers of its series. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from selfemo_api.recipes import resolve
from selfemo_api.recipes.recipe import base_values, merged

Json = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """An evolution, with the parts that several readers of series use."""

    item: Json
    """The evolution as the API server returns it."""
    spec: Json
    """Its resolved spec: the recipe is applied."""
    status: Json
    totals: dict[str, Json] = field(default_factory=dict)
    """The entries of `status.stages` by stage."""
    evaluated: Json = field(default_factory=dict)
    """The entry of the last evaluated generation in `status.history`."""

    @property
    def scores(self) -> list[Json]:
        """The scores of the last evaluated generation, the selection dataset first."""
        scores: list[Json] = self.evaluated.get("scores", [])
        return scores

    @property
    def expression(self) -> Json:
        """The expression of the last evaluated generation; empty if the responder did not play."""
        expression: Json = self.evaluated.get("expression") or {}
        return expression


def snapshot_of(item: Json) -> Snapshot:
    """Return the snapshot of an evolution.

    Parameters
    ----------
    item
        The evolution as the API server returns it.
    """
    status = item.get("status") or {}
    scored = (e for e in reversed(status.get("history", [])) if e.get("scores"))
    totals = {t["stage"]: t for t in status.get("stages", [])}
    spec = merged(base_values(), resolve(item["spec"]))
    return Snapshot(item, spec, status, totals, next(scored, {}))
