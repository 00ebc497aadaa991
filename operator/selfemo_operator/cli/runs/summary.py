"""What `selfemo list` and `selfemo status` print about a run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.status import ConditionType
from selfemo_api.text.formatting import duration
from selfemo_operator.local.owner import read_owner
from selfemo_operator.local.state import is_active

_DAY = 24 * 3600


def run_summary(evolution: EmotionEvolution) -> dict[str, Any]:
    """Return the main facts of a run, on one machine or on a cluster, as an object for JSON.

    Parameters
    ----------
    evolution
        The evolution with its status.
    """
    status = evolution.status
    condition = status.condition(ConditionType.SUCCEEDED)
    return {
        "name": evolution.metadata.name,
        "namespace": evolution.metadata.namespace,
        "phase": status.phase.value,
        "generation": status.generation,
        "maxGenerations": evolution.spec.stopping.max_generations,
        "stage": status.stage.value if status.stage else None,
        "attempt": status.attempt,
        "best": status.best.to_json() if status.best else None,
        "f1": status.f1,
        "startTime": status.start_time.isoformat() if status.start_time else None,
        "completionTime": status.completion_time.isoformat() if status.completion_time else None,
        "reason": condition.reason if condition else "",
        "message": condition.message if condition else "",
        "lastFailure": status.last_failure,
        "uri": status.uri,
    }


def local_summary(folder: Path, evolution: EmotionEvolution) -> dict[str, Any]:
    """Return the main facts of a run on this machine, as an object for JSON.

    Parameters
    ----------
    folder
        The state folder of the run.
    evolution
        The stored evolution.
    """
    active = is_active(folder)
    owner = read_owner(folder) if active else None
    return {
        **run_summary(evolution),
        "active": active,
        "process": owner.pid if owner else None,
        "host": owner.host if owner else None,
        "state": str(folder),
    }


def age(start: str | None, now: datetime | None = None) -> str:
    """Return how long ago something began, as text for people.

    Parameters
    ----------
    start
        The time in the form of ISO 8601. None: it has not begun.
    now
        The present time. None: of the clock.

    Examples
    --------
    >>> age("2026-01-01T00:00:00+00:00", datetime(2026, 1, 4, 1, tzinfo=UTC))
    '3 d 1 h'
    """
    if start is None:
        return "-"
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(start)).total_seconds()
    if seconds < _DAY:
        return duration(max(seconds, 0.0))
    return f"{int(seconds // _DAY)} d {int(seconds % _DAY // 3600)} h"


def best_text(summary: dict[str, Any]) -> str:
    """Return the best F1 of a run, with its generation.

    Parameters
    ----------
    summary
        The facts of the run.
    """
    best = summary["best"]
    return f"{best['f1']:.4f} (generation {best['generation']})" if best else "-"


def status_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the name and the value of each fact of a run that has one.

    Parameters
    ----------
    summary
        The facts of the run.
    """
    stage = summary["stage"] or "-"
    attempt = f", attempt {summary['attempt']}" if summary["attempt"] > 1 else ""
    ended = summary["completionTime"] is not None
    rows = [
        ("name", f"{summary['namespace']}/{summary['name']}"),
        ("phase", summary["phase"]),
        ("generation", f"{summary['generation']} of at most {summary['maxGenerations']}"),
        ("stage", f"{stage}{attempt}"),
        ("best F1", best_text(summary)),
        ("started", _time(summary["startTime"])),
        ("ended" if ended else "", _time(summary["completionTime"])),
        ("reason", summary["reason"] if ended else ""),
        ("message", summary["message"] if ended else ""),
        ("last failure", summary["lastFailure"] or ""),
        ("results", summary["uri"] or ""),
    ]
    return [(name, value) for name, value in rows if name and value]


def _time(text: str | None) -> str:
    """Return a time in UTC, and how long ago it was; an empty text if there is none."""
    if text is None:
        return ""
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC ({age(text)} ago)"
