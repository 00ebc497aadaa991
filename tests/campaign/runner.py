"""Runs one scenario: start, perturb, wait for the end, check, delete, check again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from tests.campaign import final_checks, oracles, user_perturbations
from tests.campaign.catalog import KINDS, end_state
from tests.campaign.model import Evolution, Perturbation, Verdict, Violation
from tests.campaign.perturbations import PERTURBATIONS
from tests.campaign.requests import Cut
from tests.campaign.world import World

Json = dict[str, Any]
#: Seconds after which all faults end, whatever has taken place.
HEAL_SECONDS = 60.0
#: Seconds within which everything must end after the faults.
END_SECONDS = 90.0
#: Seconds more while the Job controller does not create the pod of a Job.
JOB_CONTROLLER_SECONDS = 60.0


class Run:
    """One run of a scenario.

    Parameters
    ----------
    world
        The lane that it uses, not started.
    expected
        The end of each kind of evolution in the reference run.
    """

    def __init__(self, world: World, expected: Mapping[str, Json]) -> None:
        self.world = world
        self.scenario = world.scenario
        self.expected = expected
        self.verdict = Verdict(world.scenario)
        self.seen = oracles.Checked()
        self.lock = threading.Lock()
        self.healed = False
        self.waiting = sorted(self.scenario.perturbations, key=lambda p: p.at)

    def run(self) -> Verdict:
        """Run the scenario; return the verdict."""
        started = time.monotonic()
        world, verdict = self.world, self.verdict
        codes: list[int | None] = []
        try:
            world.start()
            world.faults.before_write = lambda number: self._due(number, "before")
            world.faults.after_write = lambda number: self._due(number, "after")
            self.act()
            self._count_effects()
            verdict.violations += list(self._checks())
            if world.suspended:
                verdict.violations += list(self._resumed())
            self._delete_all()
            verdict.violations += list(self._checks_after_deletion())
            codes = world.stop()
        except Exception as error:  # noqa: BLE001 - the next scenario must run
            verdict.violations.append(Violation("campaign", f"{type(error).__name__}: {error}"))
            world.kill_all()
            world.stop()
        if any(code not in (0, -9) for code in codes):
            text = f"after SIGTERM, the operators ended with {codes}"
            verdict.violations.append(Violation("O9 SIGTERM", text))
        verdict.checks = sum(self.seen.counts.values())
        verdict.seconds = time.monotonic() - started
        verdict.facts = {
            "writes": len(world.faults.writes),
            "checks": dict(self.seen.counts),
            "faults": dict(world.faults.counts),
            "pods": len(world.recording.pods),
        }
        return verdict

    def act(self) -> None:
        """Create the evolutions, and wait until they have ended."""
        for evolution in self.scenario.evolutions:
            with self.world.namespace_lock:  # its namespace may be deleted already
                self.world.create(evolution.name)
        if self.scenario.form == "cold":
            self.world.start_operators()
        self.wait_for_end(END_SECONDS)

    def end_states(self) -> dict[str, Json]:
        """Return the end of each kind: what a reference run is for."""
        return {
            r.name.rpartition("-")[0]: end_state(r.last.status)
            for r in self.world.recording.evolutions.values()
        }

    # Perturbations --------------------------------------------------------------------------------

    def _due(self, number: int, moment: str) -> None:
        """Let the perturbations take place that are due at a write; may raise Cut."""
        due: list[Perturbation] = []
        with self.lock:
            if self.healed:
                return
            for this in list(self.waiting):
                if this.at > number:
                    break
                kind = PERTURBATIONS[this.kind]
                if kind.moment in (moment, "beside"):
                    self.waiting.remove(this)
                    due.append(this)
        cut: Cut | None = None
        for this in due:
            if PERTURBATIONS[this.kind].moment == "beside":
                self.world.later(lambda this=this: self._apply(this))  # type: ignore[misc]
                continue
            try:
                self._apply(this)
            except Cut as error:
                self.verdict.applied.append(this.kind)
                cut = error
        if cut is not None:
            raise cut

    def _apply(self, this: Perturbation) -> None:
        try:
            # repeated while etcd is restarted for a snapshot, as a user would
            effect = PERTURBATIONS[this.kind].effect
            nothing = self.world.insist(lambda: effect(self.world, this))
        except (AssertionError, ApiError) as error:
            away = isinstance(error, ApiError) and error.status in (403, 404)
            if not away:  # its namespace may be away
                self.verdict.violations.append(Violation("campaign", f"{this.kind}: {error}"))
            return
        if nothing is None and not PERTURBATIONS[this.kind].armed:
            self.verdict.applied.append(this.kind)

    # The end --------------------------------------------------------------------------------------

    def _count_effects(self) -> None:
        """Count the perturbations that were armed and have had an effect."""
        world = self.world
        self.verdict.applied += world.faults.took_place
        with world.recorder.lock:
            for uid, ending in world.kubelet.applied:
                self.verdict.applied.append(f"pod-{ending}")
                world.recording.by_hand.append((uid, ending))
            world.kubelet.applied.clear()

    def wait_for_end(self, seconds: float) -> None:
        heal_at = time.monotonic() + (0.0 if self.healed else HEAL_SECONDS)
        deadline = heal_at + seconds
        while time.monotonic() < deadline or self.waits_longer(deadline):
            if self.healed:
                if self._all_ended():
                    return
            elif time.monotonic() > heal_at or (not self.waiting or self._all_ended()):
                self.heal()
            time.sleep(0.25)

    def waits_longer(self, deadline: float) -> bool:
        if time.monotonic() > deadline + JOB_CONTROLLER_SECONDS:
            return False
        with self.world.recorder.lock:
            return oracles.waits_for_job_controller(self.world.recording)

    def heal(self) -> None:
        """End the faults, once the perturbations have had a moment to take place."""
        with self.lock:
            self.healed = True
        for thread in list(self.world.threads):
            thread.join(8.0)
        latest = max((w.until for w in self.world.faults.windows), default=0.0)
        time.sleep(max(0.0, min(3.0, latest - time.monotonic())))
        self.world.faults.heal()
        self.world.kubelet.disarm()

    def _all_ended(self) -> bool:
        """Return whether each evolution has ended as its kind does, or is gone."""
        with self.world.recorder.lock:
            return all(self._has_ended(evolution) for evolution in self.scenario.evolutions)

    def _has_ended(self, evolution: Evolution) -> bool:
        kind = KINDS[evolution.kind]
        namespace = self.world.namespaces[evolution.namespace]
        record = self.world.recording.named(namespace, evolution.name)
        if record is None:
            return kind.expires
        status = record.last.status
        if status.get("observedGeneration") != record.last.generation:
            return False
        if evolution.name in self.world.suspended:
            return status.get("phase") == "Suspended" or bool(status.get("completionTime"))
        if kind.expires:
            return False
        if status.get("completionTime") is None and not kind.refused:
            return False
        return status.get("phase") in ("Succeeded", "Failed", "Collapsed")

    def _checks(self) -> Iterator[Violation]:
        world, seen = self.world, self.seen
        yield from final_checks.quiet(world, seen)
        yield from final_checks.alive(world, seen)
        yield from final_checks.series_are_live(world, seen)
        yield from final_checks.memory(world, seen)
        with world.recorder.lock:
            recording = world.recording
            yield from oracles.suspended_have_no_pods(recording, world.suspended, seen)
            yield from oracles.ends_as_reference(recording, self.expected, world.suspended, seen)
            yield from self.missing()
            yield from oracles.settled(recording, seen)
            yield from oracles.refused_is_told(recording, seen)

    def _resumed(self) -> Iterator[Violation]:
        """Resume what was suspended to the end; it ends as the others do."""
        world = self.world
        suspended, world.suspended = world.suspended, set()
        for name in suspended:
            user_perturbations.resume(world, name)
        self.wait_for_end(END_SECONDS)
        with world.recorder.lock:
            yield from oracles.ends_as_reference(world.recording, self.expected, (), self.seen)
            yield from self.missing()

    def missing(self) -> Iterator[Violation]:
        for evolution in self.scenario.evolutions:
            namespace = self.world.namespaces[evolution.namespace]
            record = self.world.recording.named(namespace, evolution.name)
            oracle = self.seen("O1 end state")
            expires = KINDS[evolution.kind].expires
            if expires and evolution.name in self.world.suspended:
                continue  # it expires once it is resumed and has ended
            if (record is None) != expires:
                text = "it is gone" if record is None else "its time is over, and it is there"
                yield Violation(oracle, text, evolution.name)

    def _delete_all(self) -> None:
        for evolution in self.scenario.evolutions:
            self.world.delete(evolution.name)

    def _checks_after_deletion(self) -> Iterator[Violation]:
        world, seen = self.world, self.seen
        yield from final_checks.no_orphans(world, seen)
        yield from final_checks.series_are_live(world, seen)
        yield from final_checks.request_rate(world, seen)
        yield from final_checks.no_traceback(world, seen)
        with world.recorder.lock:
            recording = world.recording
            yield from oracles.each_stage_once(recording, seen)
            yield from oracles.no_pod_beside(recording, seen)
            yield from oracles.generations_rise(recording, seen)
            yield from oracles.conditions_hold(recording, seen)
            yield from oracles.bounded(recording, self._events(), seen)
            yield from oracles.nothing_refused_runs(recording, seen)
            yield from oracles.purges(recording, seen)

    def _events(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for namespace in self.world.namespaces:
            with contextlib.suppress(ApiError):
                for event in self.world.kube.get(names.core_path(namespace, "events"))["items"]:
                    uid = event["involvedObject"].get("uid", "")
                    counts[uid] = counts.get(uid, 0) + 1
        return counts
