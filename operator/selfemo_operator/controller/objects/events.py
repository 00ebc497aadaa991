"""Kubernetes events: what a status write says that people want to read. Pure.

An event's name follows from what happened, so it is there once however often it is written.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from selfemo_api.api_model import API_VERSION, KIND
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionStatus, ConditionType, EvolutionStatus, Outcome

#: Longest note of an event; the API's bound.
NOTE_MAX = 1024


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    reason: str
    """Short, unique, CamelCase."""
    message: str
    warning: bool = False


def events_between(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    """Return what a status write says that was not said before."""
    found = []
    if before.start_time is None and after.start_time is not None:
        found.append(Event("Started", "generation 0 is evaluated: the model as given"))
    found += _failed(before, after)
    found += _closed(before, after)
    found += _turned(before, after)
    return found


def _failed(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    tried = (after.failures, after.disruptions)
    if not after.last_failure or tried <= (before.failures, before.disruptions):
        return []
    reason = "StageFailed" if after.failures > before.failures else "StageDisrupted"
    stage = before.stage.value if before.stage else ""
    where = f"generation {before.generation}, {stage}, attempt {before.attempt}"
    return [Event(reason, f"{where}: {after.last_failure}", warning=True)]


def _closed(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    """Return one notice for a generation that was closed."""
    if not after.history or after.history[-1:] == before.history[-1:]:
        return []
    entry = after.history[-1]
    warning = entry.outcome in (Outcome.ROLLED_BACK, Outcome.COLLAPSED)
    text = f"generation {entry.generation}: {entry.message}"
    return [Event(f"Generation{entry.outcome.value}", text, warning)]


def _turned(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    """Return notices for the end, a suspension, and going on."""
    found = []
    summary = after.condition(ConditionType.SUCCEEDED)
    if after.finished and not before.finished and summary is not None:
        bad = summary.status is ConditionStatus.FALSE
        found.append(Event(summary.reason, summary.message or summary.reason, bad))
    if before.finished and not after.finished:
        found.append(Event("Reopened", "an edit lets the evolution go on"))
    if after.suspended_time and not before.suspended_time:
        found.append(Event("Suspended", "no pod runs until `spec.suspend` is false"))
    if before.suspended_time and not after.suspended_time:
        found.append(Event("Resumed", "the evolution goes on where it was"))
    return found


def event_manifest(
    evolution: EmotionEvolution, notice: Event, now: datetime, reporter: str
) -> dict[str, Any]:
    """Return the event's object."""
    metadata = evolution.metadata
    said = f"{metadata.uid}/{metadata.resource_version}/{notice.reason}/{notice.message}"
    digest = hashlib.sha256(said.encode()).hexdigest()[:16]
    time = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata.name}.{digest}", "namespace": metadata.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        },
        "type": "Warning" if notice.warning else "Normal",
        "reason": notice.reason,
        "message": notice.message[:NOTE_MAX],
        "eventTime": time,
        "action": "Reconcile",
        "reportingComponent": "selfemo-operator",
        "reportingInstance": reporter[:128],
        "firstTimestamp": time[:19] + "Z",
        "lastTimestamp": time[:19] + "Z",
        "count": 1,
        "source": {"component": "selfemo-operator"},
    }
