"""Kubernetes Events: what a status write reports to people. Pure.

An Event's name is derived from its content, so writing it again creates no second one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from selfemo_api.api_model import API_VERSION, KIND
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.metrics import CheckMetric, WarmStartMetric
from selfemo_api.stages import Stage
from selfemo_api.status import ConditionStatus, ConditionType, EvolutionStatus, Outcome, Reason

#: The longest message of an Event in bytes of UTF-8, a limit of the API.
MESSAGE_MAX = 1024


class EventReason(StrEnum):
    """All reasons of Events, except those of an end, which are the reasons of the condition."""

    STARTED = "Started"
    """The evolution begins with the check of its input."""
    INPUT_CHECKED = "InputChecked"
    """Check found no problem; the message lists the number of dialogues and of warnings."""
    WARM_STARTED = "WarmStarted"
    """The warm start has trained generation 0; the message shows its F1 before and after."""
    GENERATION_BASELINE = "GenerationBaseline"
    """Generation 0 was evaluated: its F1 is the baseline."""
    GENERATION_PROMOTED = "GenerationPromoted"
    """A generation is the best so far."""
    GENERATION_ROLLED_BACK = "GenerationRolledBack"
    """A generation was not better: the next one starts from the best."""
    GENERATION_CONTINUED = "GenerationContinued"
    """A generation was not better, and the next one still starts from it."""
    GENERATION_COLLAPSED = "GenerationCollapsed"
    """A generation crossed a threshold of `overrides.stopping.collapse`."""
    STAGE_FAILED = "StageFailed"
    """An attempt of a stage failed; the message contains its error."""
    STAGE_DISRUPTED = "StageDisrupted"
    """An attempt was lost to a cause outside the stage, for example a lost node."""
    PODS_REPLACED = "PodsReplaced"
    """Pods of a stage were removed, and the Job has recreated them."""
    RESULT_DAMAGED = "ResultDamaged"
    """A stored result is missing or damaged; the message lists the stages that run again."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true: no pod runs until it is false."""
    RESUMED = "Resumed"
    """`spec.suspend` is false again."""
    REOPENED = "Reopened"
    """An evolution that had ended continues after an edit of its spec."""
    STATUS_REJECTED = "StatusRejected"
    """The API server rejects a status; the operator retries with an increasing delay."""
    PURGE_JOB_CONFLICT = "PurgeJobConflict"
    """The Job that removes the data cannot be created or replaced; the message explains why."""
    PURGE_REFUSED = "PurgeRefused"
    """On a Job: it would remove data of a deleted evolution, and the operator does not allow it."""


@dataclass(frozen=True)
class Event:
    """One Event to record."""

    reason: EventReason | Reason
    """The reason in CamelCase: an Event reason, or the condition's reason for an end."""
    message: str
    """The human-readable text."""
    warning: bool = False
    """Whether the type is `Warning` rather than `Normal`."""


def events_between(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    """Return the Events of a status write.

    Parameters
    ----------
    before
        The status that was read.
    after
        The status that is written.
    """
    events = []
    if before.start_time is None and after.start_time is not None:
        events.append(Event(EventReason.STARTED, "generation 0: the input is being checked"))
    events += _failure_events(before, after)
    events += _preparation_events(before, after)
    events += _generation_events(before, after)
    events += _lifecycle_events(before, after)
    return events


def _failure_events(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    counts = (after.failures, after.disruptions)
    stage = before.stage.value if before.stage else ""
    where = f"generation {before.generation}, {stage}, attempt {before.attempt}"
    events = []
    replaced = after.replaced_pods - before.replaced_pods
    if replaced > 0:
        text = f"{where}: pods that were removed and recreated: {replaced}"
        events.append(Event(EventReason.PODS_REPLACED, text, warning=True))
    if _has_found_damage(before, after):
        again = after.stage.value if after.stage else ""
        text = f"{where}: {after.last_failure}; {again} and the stages after it run again"
        events.append(Event(EventReason.RESULT_DAMAGED, text, warning=True))
    elif after.last_failure and counts > (before.failures, before.disruptions):
        failed = after.failures > before.failures
        reason = EventReason.STAGE_FAILED if failed else EventReason.STAGE_DISRUPTED
        events.append(Event(reason, f"{where}: {after.last_failure}", warning=True))
    return events


def _has_found_damage(before: EvolutionStatus, after: EvolutionStatus) -> bool:
    """Return whether a stage could not read a result. A recovery after an edit does not count."""
    if after.recovery is None or after.recoveries == 0:
        return False
    return (before.recovery, before.recoveries) != (after.recovery, after.recoveries)


def _preparation_events(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    """Return the Events for the stages of generation 0 before its evaluation."""
    events = []
    checked = after.result(Stage.CHECK)
    if checked is not None and before.result(Stage.CHECK) is None:
        dialogues, utterances, warnings = (
            int(checked.metrics.get(metric, 0))
            for metric in (CheckMetric.DIALOGUES, CheckMetric.UTTERANCES, CheckMetric.WARNINGS)
        )
        text = f"{dialogues} dialogues, {utterances} utterances; warnings: {warnings}"
        message = f"generation 0, Check: no problems in {text}"
        events.append(Event(EventReason.INPUT_CHECKED, message))
    trained = after.result(Stage.WARM_START)
    if trained is not None and before.result(Stage.WARM_START) is None:
        values = trained.metrics
        text = (
            f"weighted F1 {values.get(WarmStartMetric.WEIGHTED_F1_BEFORE, 0.0):.4f} -> "
            f"{values.get(WarmStartMetric.WEIGHTED_F1, 0.0):.4f} "
            f"after {values.get(WarmStartMetric.BEST_STEP, 0):.0f} steps"
        )
        events.append(Event(EventReason.WARM_STARTED, f"generation 0, WarmStart: {text}"))
    return events


def _generation_events(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    """Return the Event for a generation that has ended.

    A recovery from Publish takes the last entry out of the history. The one before it is known.
    """
    if not after.history or after.history[-1] in before.history:
        return []
    entry = after.history[-1]
    warning = entry.outcome in (Outcome.ROLLED_BACK, Outcome.COLLAPSED)
    text = f"generation {entry.generation}: {entry.message}"
    return [Event(EventReason(f"Generation{entry.outcome.value}"), text, warning)]


def _lifecycle_events(before: EvolutionStatus, after: EvolutionStatus) -> list[Event]:
    """Return the Events for the end of the evolution, a suspension, and a continuation."""
    events = []
    summary = after.condition(ConditionType.SUCCEEDED)
    if after.finished and summary is not None and not _has_ended(before, summary.message):
        failed = summary.status is ConditionStatus.FALSE
        reason = Reason(summary.reason)
        events.append(Event(reason, summary.message or reason.value, failed))
    if before.finished and not after.finished:
        message = "the evolution continues after an edit of its spec"
        events.append(Event(EventReason.REOPENED, message))
    if after.suspended_time and not before.suspended_time:
        message = "no pod runs until `spec.suspend` is false"
        events.append(Event(EventReason.SUSPENDED, message))
    if before.suspended_time and not after.suspended_time:
        message = "the evolution continues where it was suspended"
        events.append(Event(EventReason.RESUMED, message))
    return events


def _has_ended(status: EvolutionStatus, message: str) -> bool:
    """Return whether a status has the end with a message. A bad edit may follow another one."""
    summary = status.condition(ConditionType.SUCCEEDED)
    return status.finished and summary is not None and summary.message == message


def shortened(message: str) -> str:
    r"""Return a message that fits in an Event.

    From a message of several lines, such as the problems of an input, whole lines are left out. The
    API server counts bytes: a character of another script than Latin has two or more.

    Parameters
    ----------
    message
        The message of the Event.

    Examples
    --------
    >>> shortened("\n".join(["3 problems", "a" * 600, "b" * 600, "c"]))[-52:]
    'aa\nand 2 more lines: the condition lists all of them'
    >>> len(shortened("\N{CJK UNIFIED IDEOGRAPH-8BED}" * 1024))
    341
    """
    if _fits(message):
        return message
    lines = message.splitlines()
    for count in range(len(lines) - 1, 1, -1):
        rest = f"and {len(lines) - count} more lines: the condition lists all of them"
        text = "\n".join([*lines[:count], rest])
        if _fits(text):
            return text
    return message.encode("utf-8", "replace")[:MESSAGE_MAX].decode("utf-8", "ignore")


def _fits(message: str) -> bool:
    return len(message.encode("utf-8", "replace")) <= MESSAGE_MAX


def event_manifest(
    evolution: EmotionEvolution, event: Event, now: datetime, reporter: str
) -> dict[str, Any]:
    """Return the Event object to create.

    Parameters
    ----------
    evolution
        The evolution that the Event is about.
    event
        The Event.
    now
        The time of the Event, with a time zone.
    reporter
        The name of the operator's pod.
    """
    metadata = evolution.metadata
    involved = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "resourceVersion": metadata.resource_version,
    }
    return _manifest(involved, event, now, reporter)


def job_event_manifest(
    metadata: Mapping[str, Any], event: Event, now: datetime, reporter: str
) -> dict[str, Any]:
    """Return the Event object to create for a Job.

    Parameters
    ----------
    metadata
        The metadata of the Job that the Event is about.
    event
        The Event.
    now
        The time of the Event, with a time zone.
    reporter
        The name of the operator's pod.
    """
    fields = ("name", "namespace", "uid", "resourceVersion")
    involved = {"apiVersion": "batch/v1", "kind": "Job", **{f: metadata[f] for f in fields}}
    return _manifest(involved, event, now, reporter)


def _manifest(
    involved: Mapping[str, str], event: Event, now: datetime, reporter: str
) -> dict[str, Any]:
    identity = f"{involved['uid']}/{involved['resourceVersion']}/{event.reason}/{event.message}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    time = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    name, namespace = f"{involved['name']}.{digest}", involved["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": dict(involved),
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason.value,
        "message": shortened(event.message),
        "eventTime": time,
        "action": "Reconcile",
        "reportingComponent": "selfemo-operator",
        "reportingInstance": reporter[:128],
        "firstTimestamp": time[:19] + "Z",
        "lastTimestamp": time[:19] + "Z",
        "count": 1,
        "source": {"component": "selfemo-operator"},
    }
