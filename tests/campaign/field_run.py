"""Changes of the fields of the CRD: each is refused, reported, or works, and can be set back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from tests.campaign.catalog import evolution_path, manifest
from tests.campaign.model import Perturbation, Violation
from tests.campaign.runner import Run
from tests.integration.operator.spec_strategies import Place, changed

Json = dict[str, Any]
#: Seconds within which the operator must have handled a changed spec.
_HANDLED_SECONDS = 40.0
#: Seconds within which an evolution must end once its spec is as before.
_END_SECONDS = 120.0
_THREADS = 8
_FINAL = ("Succeeded", "Collapsed")


class FieldRun(Run):
    """A run in which each evolution has fields changed, and set back.

    A third is created with the change. The others are edited once they run.
    """

    def act(self) -> None:
        """Change and set back the fields of all evolutions, several at the same time."""
        with self.lock:
            self.waiting.clear()
            self.healed = True
        with ThreadPoolExecutor(_THREADS) as pool:
            for violations in pool.map(self._changed, self.scenario.perturbations):
                self.verdict.violations += violations

    def missing(self) -> Iterator[Violation]:
        """An evolution may be gone: its time after the end may have been one of the changes."""
        yield from ()

    def _changed(self, this: Perturbation) -> list[Violation]:
        try:
            return [
                Violation(o, f"{t} — the change: {this.data[:400]}", this.target)
                for o, t in self._steps(this)
            ]
        except ApiError as error:
            if error.status == 404:
                return []  # it has expired
            return [Violation("campaign", f"{error} — the change: {this.data[:400]}", this.target)]

    def _steps(self, this: Perturbation) -> Iterator[tuple[str, str]]:
        """Yield the name of each check that does not hold, and why."""
        world, name = self.world, this.target
        namespace = world.namespace_of(name)
        base = manifest(name, "field", namespace)
        edits: list[tuple[Place, Any]] = [
            (tuple(place), value) for place, value in json.loads(this.data)
        ]
        spec = base["spec"]
        for place, value in edits:
            spec = changed(spec, place, value)
        at_once = this.amount % 3 == 0
        if not at_once:
            world.create(name)
            self._wait(name, lambda item: bool(item.get("status", {}).get("stage")))
        refusal = self._write({**base, "spec": spec}, at_once)
        with self.lock:
            self.verdict.applied.append("field-refused" if refusal else "field-changed")
        if refusal is not None:
            if not _names_field(edits, refusal):
                yield self.seen("O10 refusals"), f"the message names no field: {refusal[:400]}"
            if at_once:
                return
        elif not self._wait(name, _is_handled):
            yield self.seen("O10 told"), f"it is not handled: {self._status(name)}"
        refused = self._write(base, new=False)
        self.seen("O10 recovery")
        recovered = _has_succeeded_or_told if at_once else _has_succeeded
        if refused is None and not self._wait(name, recovered, _END_SECONDS):
            yield "O10 recovery", f"it does not recover when set back: {self._status(name)}"
        with self.lock:
            self.verdict.applied.append("field-back-refused" if refused else "field-back")

    def _write(self, body: Json, new: bool) -> str | None:
        """Create an evolution or replace its spec; return the message of a refusal, or None."""
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        kube = self.world.kube
        for _ in range(30):
            try:
                if new:
                    kube.create(names.evolutions_path(namespace), body)
                else:
                    path = evolution_path(namespace, name)
                    kube.replace(path, {**kube.get(path), "spec": body["spec"]})
            except ApiError as error:
                if error.status == 409:
                    continue
                if error.status in (400, 413, 422):
                    return error.message
                raise
            return None
        raise AssertionError(f"{name} was not written in 30 tries")

    def _wait(self, name: str, check: Any, seconds: float = _HANDLED_SECONDS) -> bool:
        """Wait until an evolution passes a check, or is gone; return whether it does."""
        path = evolution_path(self.world.namespace_of(name), name)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or self.waits_longer(deadline):
            try:
                item = self.world.kube.get(path)
            except ApiError as error:
                if error.status == 404:
                    return True
                item = {}
            if item and check(item):
                return True
            time.sleep(0.4)
        return False

    def _status(self, name: str) -> str:
        item = self.world.kube.get(evolution_path(self.world.namespace_of(name), name))
        status = item.get("status", {})
        shown = {k: status.get(k) for k in ("phase", "observedGeneration", "stage", "lastFailure")}
        true = [c for c in status.get("conditions", []) if c["type"] in ("Stalled", "Succeeded")]
        return f"generation {item['metadata']['generation']}: {shown} {true}"[:900]


def _names_field(edits: list[tuple[Place, Any]], message: str) -> bool:
    words = [str(part) for place, _ in edits for part in place if not isinstance(part, int)]
    return any(word in message for word in words)


def _is_handled(item: Json) -> bool:
    """Return whether the operator has taken a spec into account, or must not."""
    if item["spec"].get("managedBy") not in (None, "selfemo.dev/operator"):
        return True
    status = item.get("status", {})
    return bool(status.get("observedGeneration") == item["metadata"]["generation"])


def _has_succeeded(item: Json) -> bool:
    """Return whether an evolution has come to a good end."""
    return item.get("status", {}).get("phase") in _FINAL and _is_handled(item)


def _has_succeeded_or_told(item: Json) -> bool:
    """Return whether an evolution has come to a good end, or is asked to keep its first spec.

    One that was created with a change has been measured with it, and to set it back is the change.
    """
    conditions = item.get("status", {}).get("conditions", [])
    told = any(c["type"] == "Stalled" and "Restore it" in c["message"] for c in conditions)
    return _has_succeeded(item) or (told and _is_handled(item))
