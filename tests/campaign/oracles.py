"""The checks that hold after any perturbation, as functions over what was recorded. Pure.

Each yields violations. `Checked` counts the comparisons, so that a campaign can say how many it
made.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from selfemo_api.status import ConditionType
from selfemo_operator.controller.objects import names
from tests.campaign.catalog import KINDS, end_state
from tests.campaign.model import Violation
from tests.campaign.recording import EvolutionRecord, ObjectRecord, Recording, Version
from tests.integration.chart.restricted import violations

Json = dict[str, Any]
#: The largest size of a stored evolution in bytes. An object may have 1.5 MB.
MAX_BYTES = 64 * 1024
#: Attempts beyond those that perturbations explain: a pod that is lost may cost two, if the Job
#: that remains without its pod is replaced.
_SPARE = 1
#: Attempts that changes of fields explain: other pods, a failure, and the first spec again.
_FIELD_CAUSES = 6
#: Perturbations that may cost a stage another successful Job: its result was lost or not awaited.
_REPEATS = ("job-deleted", "message", "damaged", "suspended", "edited", "refused", "pod-deleted")


@dataclass
class Checked:
    """The number of comparisons by oracle."""

    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, oracle: str, number: int = 1) -> str:
        self.counts[oracle] += number
        return oracle


def ends_as_reference(
    recording: Recording, expected: Mapping[str, Json], omitted: Collection[str], seen: Checked
) -> Iterator[Violation]:
    """O1: each evolution that lives ends as one of its kind does without perturbations."""
    for record in recording.live():
        if record.name in omitted:
            continue
        kind = record.name.rpartition("-")[0]
        oracle = seen("O1 end state")
        state = end_state(record.last.status)
        if kind in expected and state != expected[kind]:
            different = {k: v for k, v in state.items() if v != expected[kind][k]}
            wanted = {k: expected[kind][k] for k in different}
            yield Violation(oracle, f"{different} instead of {wanted}", record.name)


def suspended_have_no_pods(
    recording: Recording, suspended: Collection[str], seen: Checked
) -> Iterator[Violation]:
    """O12: a suspended evolution has no active pod, and no deadline of it fires."""
    for record in recording.live():
        if record.name not in suspended or not record.last.spec.get("suspend"):
            continue
        oracle = seen("O12 suspended")
        pods = [p for p in recording.pods.values() if p.evolution == record.uid]
        active = [pod.name for pod in pods if pod.gone == float("inf")]
        if active:
            yield Violation(oracle, f"it is suspended, and {active} are active", record.name)
        stalled = [
            c["reason"]
            for c in record.last.status.get("conditions", [])
            if c["type"] == "Stalled" and c["status"] == "True"
        ]
        if stalled and not record.name.startswith("bad-"):
            yield Violation(oracle, f"it is suspended, and stalled: {stalled}", record.name)


def each_stage_once(recording: Recording, seen: Checked) -> Iterator[Violation]:
    """O2, O11: one successful Job for each stage, one Job at a time, bounded repetition."""
    causes = Counter(recording.by_hand)
    for record in recording.evolutions.values():
        jobs = sorted(recording.jobs_of(record.uid), key=lambda job: job.created)
        allowed = sum(causes[(record.uid, kind)] for kind in _REPEATS)
        allowed += record.name.startswith("field-")  # a deadline may have ended it before the edit
        good = Counter(job.stage for job in jobs if job.result == "Complete")
        repeated = {stage: number - 1 for stage, number in good.items() if number > 1}
        oracle = seen("O2 successful Jobs", max(1, len(good)))
        if sum(repeated.values()) > allowed:
            text = f"{repeated} successful Jobs too many; {allowed} are explained"
            yield Violation(oracle, text, record.name)
        oracle = seen("O2 Jobs at a time", len(jobs))
        yield from _overlaps(oracle, record, jobs)
        all_causes = sum(n for (uid, _), n in causes.items() if uid == record.uid)
        if record.name.startswith("field-"):
            all_causes += _FIELD_CAUSES
        extra = len(jobs) - len({job.stage for job in jobs})
        oracle = seen("O11 attempts")
        if extra > all_causes + _SPARE:
            yield Violation(
                oracle, f"{extra} Jobs were repeated; {all_causes} losses explain them", record.name
            )


def _overlaps(
    oracle: str, record: EvolutionRecord, jobs: list[ObjectRecord]
) -> Iterator[Violation]:
    for before, job in itertools.pairwise(jobs):
        if job.created < before.gone:
            yield Violation(oracle, f"{job.name} was created beside {before.name}", record.name)


def no_pod_beside(recording: Recording, seen: Checked) -> Iterator[Violation]:
    """O2: no Job of a stage is created while a pod of another attempt of the stage lives."""
    for job in recording.jobs.values():
        if job.stage[1] == names.PURGE:
            continue
        oracle = seen("O2 pods of other attempts")
        for pod in recording.pods.values():
            same = (pod.evolution, pod.stage) == (job.evolution, job.stage)
            if (
                same
                and not _is_late(recording, pod)
                and job.uid not in pod.owners
                and pod.created < job.created < pod.gone
            ):
                text = f"{job.name} was created while the pod {pod.name} lived"
                yield Violation(oracle, text, job.labels[names.LABEL_EVOLUTION])


def _is_late(recording: Recording, pod: ObjectRecord) -> bool:
    """Return whether the Job controller created a pod after the deletion of its Job."""
    owners = [recording.jobs[uid] for uid in pod.owners if uid in recording.jobs]
    return any(job.deleted is not None and job.deleted < pod.created for job in owners)


def waits_for_job_controller(recording: Recording) -> bool:
    """Return whether a Job has no pod since another Job of its name was deleted.

    The Job controller keeps what it expects of a Job under its name, so the next one may get none.
    """
    owned = {uid for pod in recording.pods.values() for uid in pod.owners}
    gone = {(j.namespace, j.name) for j in recording.jobs.values() if j.deleted is not None}
    return any(
        job.deleted is None and not job.result and job.uid not in owned
        for job in recording.jobs.values()
        if (job.namespace, job.name) in gone
    )


def generations_rise(recording: Recording, seen: Checked) -> Iterator[Violation]:
    """O3: the generation never falls or skips one, and a generation that is left was closed."""
    if recording.lost:
        return
    for record in recording.evolutions.values():
        before: Version | None = None
        for version in sorted(record.versions, key=lambda v: v.revision):
            oracle = seen("O3 generations")
            if before is not None and before.status.get("startTime"):
                yield from _risen(oracle, record.name, before.status, version.status)
            before = version


def _risen(oracle: str, name: str, old: Json, new: Json) -> Iterator[Violation]:
    step = new.get("generation", 0) - old.get("generation", 0)
    if step not in (0, 1):
        yield Violation(oracle, f"generation {old.get('generation')} + {step}", name)
    closed = [record["generation"] for record in new.get("history", [])]
    if step == 1 and old.get("generation", 0) not in closed:
        yield Violation(oracle, f"generation {old.get('generation')} was not closed", name)
    if new.get("startTime") != old.get("startTime"):
        yield Violation(oracle, "`startTime` has changed", name)


def conditions_hold(recording: Recording, seen: Checked) -> Iterator[Violation]:
    """O6: conditions are complete, of the right generation, and change times only with status."""
    for record in recording.evolutions.values():
        before: dict[str, Json] = {}
        for version in record.versions:
            conditions = {c["type"]: c for c in version.status.get("conditions", [])}
            oracle = seen("O6 conditions", max(1, len(conditions)))
            for kind, condition in conditions.items():
                old = before.get(kind)
                moved = old and old["lastTransitionTime"] != condition["lastTransitionTime"]
                if moved and old and old["status"] == condition["status"]:
                    text = f"{kind} has another lastTransitionTime and the same status"
                    yield Violation(oracle, text, record.name)
            if conditions:
                yield from _kstatus(oracle, record.name, version, conditions)
            before = conditions


def _kstatus(
    oracle: str, name: str, version: Version, conditions: dict[str, Json]
) -> Iterator[Violation]:
    known = {kind.value for kind in ConditionType}
    missing = {"Succeeded", "Reconciling", "Stalled"} - conditions.keys()
    if missing or not conditions.keys() <= known:
        yield Violation(oracle, f"the conditions are {sorted(conditions)}", name)
        return
    ended = version.status.get("completionTime") is not None
    true = {kind for kind, condition in conditions.items() if condition["status"] == "True"}
    if {"Reconciling", "Stalled"} <= true:
        yield Violation(oracle, "Reconciling and Stalled are both True", name)
    if ended and "Reconciling" in true:
        yield Violation(oracle, "it has ended, and Reconciling is True", name)
    unreadable = conditions["Stalled"]["reason"] == "BadInput"  # whatever the outcome was
    if ended and not unreadable and ("Succeeded" in true) == ("Stalled" in true):
        yield Violation(oracle, f"it has ended, and {sorted(true)} are True", name)
    observed = {c["observedGeneration"] for c in conditions.values()}
    if observed != {version.status.get("observedGeneration")}:
        yield Violation(oracle, f"conditions observe {observed}", name)


def settled(recording: Recording, seen: Checked) -> Iterator[Violation]:
    """O6: at the end, the status takes the last edit into account (kstatus: not InProgress)."""
    for record in recording.live():
        if record.last.spec.get("managedBy") not in (None, names.MANAGER):
            continue  # another controller's: nothing is written
        oracle = seen("O6 observedGeneration")
        observed = record.last.status.get("observedGeneration")
        if observed != record.last.generation:
            text = f"generation {record.last.generation}, observed {observed}"
            yield Violation(oracle, text, record.name)


def bounded(recording: Recording, events: Mapping[str, int], seen: Checked) -> Iterator[Violation]:
    """O7: the size of an evolution and the number of its Events are bounded."""
    for record in recording.evolutions.values():
        oracle = seen("O7 size")
        largest = max(version.size for version in record.versions)
        if largest > MAX_BYTES:
            yield Violation(oracle, f"{largest} bytes", record.name)
        number = events.get(record.uid, 0)
        causes = sum(1 for uid, _ in recording.by_hand if uid == record.uid)
        if number > 40 + 6 * causes:
            yield Violation(seen("O7 events"), f"{number} Events", record.name)


def nothing_refused_runs(recording: Recording, seen: Checked) -> Iterator[Violation]:
    """O10: each pod holds to the restricted Pod Security standard, as this installation demands."""
    for record in (*recording.jobs.values(), *recording.pods.values()):
        oracle = seen("O10 restricted")
        if beyond := list(violations(record.template.get("spec", {}))):
            text = f"the {record.kind} {record.name} is beyond the restricted standard: {beyond}"
            yield Violation(oracle, text, record.labels.get(names.LABEL_EVOLUTION, ""))


def refused_is_told(recording: Recording, seen: Checked) -> Iterator[Violation]:
    """O10: a spec that cannot run is reported, and nothing runs for it."""
    for record in recording.live():
        kind = KINDS.get(record.name.rpartition("-")[0])
        if kind is None or not kind.refused:
            continue
        oracle = seen("O10 refused")
        if jobs := recording.jobs_of(record.uid):
            yield Violation(oracle, f"it has Jobs: {[job.name for job in jobs]}", record.name)
        conditions = {c["type"]: c for c in record.last.status.get("conditions", [])}
        stalled = conditions.get("Stalled", {})
        if stalled.get("status") != "True" or not stalled.get("message"):
            yield Violation(oracle, f"it is not reported: {stalled}", record.name)


def purges(recording: Recording, seen: Checked) -> Iterator[Violation]:
    """O4: the data of an evolution is removed if and only if its last spec says so."""
    purged = Counter(recording.purged)
    for record in recording.evolutions.values():
        folder = f"{record.namespace}/{record.name}-{record.uid[:8]}"
        spec = recording.deletions.get(record.uid, record.last.spec)
        wanted = spec.get("storage", {}).get("whenDeleted") == "Delete"
        oracle = seen("O4 data")
        if record.deleted is None and purged[folder]:
            yield Violation(oracle, "its data was removed while it lived", record.name)
        elif record.deleted is not None and not wanted and purged[folder]:
            text = "its data was removed although its last spec says Retain"
            yield Violation(oracle, text, record.name)
        kind = KINDS.get(record.name.rpartition("-")[0])
        ran = bool(recording.jobs_of(record.uid))
        spared = (kind is not None and kind.refused) or record.uid in recording.unpurged
        needed = record.deleted is not None and wanted and ran and not spared
        if needed and not purged[folder]:
            yield Violation(oracle, "its data was not removed", record.name)
