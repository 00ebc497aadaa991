"""A fake kubelet that is told of pods by the recorder, and can lose them in many ways."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from selfemo_api.contract import ExitCode, PurgeConfig, StageConfig
from selfemo_api.results import FailureMessage, ShardResult, encode_message
from selfemo_api.stages import Stage, stages_of
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.campaign.catalog import KINDS
from tests.integration.operator.fake_kubelet import pod_status, success_message

Json = dict[str, Any]
_THREADS = 3
#: Damaged results of one evolution. The operator gives up after three in a generation.
_MAX_DAMAGED = 2
_INDEX = "batch.kubernetes.io/job-completion-index"
#: How a pod can end instead of succeeding: the exit code, the reason, and the pod's condition.
ENDINGS: dict[str, tuple[int, str, str]] = {
    "evicted": (137, "Evicted", "EvictionByEvictionAPI"),
    "preempted": (143, "Preempting", "PreemptionByScheduler"),
    "node-lost": (137, "NodeLost", "DeletionByTaintManager"),
    "out-of-memory": (137, "OOMKilled", ""),
    "unavailable": (int(ExitCode.UNAVAILABLE), "Error", ""),
    "terminated": (int(ExitCode.TERMINATED), "Error", ""),
    "internal": (int(ExitCode.INTERNAL), "Error", ""),
}


def succeeded(config: StageConfig, kind: str) -> str:
    """Return the termination message of a stage that has succeeded."""
    f1s = KINDS[kind].f1s
    return success_message(config, f1s[min(config.generation, len(f1s) - 1)])


def of_shard(config: StageConfig, shard: int) -> str:
    """Return the termination message of a shard that is not the last one."""
    result = ShardResult(stage=config.stage, generation=config.generation, shard=shard)
    return encode_message(result)


class Kubelet:
    """Takes each pod from `Pending` to its end.

    Parameters
    ----------
    kube
        A client of the API server itself.
    on_purge
        A function that is called with the run of each purge pod that has run.
    """

    def __init__(self, kube: KubeClient, on_purge: Callable[[str], None]) -> None:
        self._kube = kube
        self._on_purge = on_purge
        self._lock = threading.Lock()
        self._queue: queue.PriorityQueue[tuple[float, int, Json | None]] = queue.PriorityQueue()
        self._count = 0
        self._armed: dict[str, list[str]] = {}
        self._held: set[str] = set()
        self._unpulled: dict[str, float] = {}
        self._taken: set[tuple[str, str]] = set()
        self._stopped = False
        self.applied: list[tuple[str, str]] = []
        """The uid of the evolution and the ending of each pod that was lost."""
        self.ended: list[tuple[str, str, str]] = []
        """The uid of the evolution, the generation and the stage of each pod that succeeded."""

    def start(self) -> None:
        """Start the threads."""
        for _ in range(_THREADS):
            threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """End the threads."""
        self._stopped = True
        for _ in range(_THREADS):
            self._put(0.0, None)

    def arm(self, uid: str, ending: str) -> None:
        """Let the next pod of an evolution end in a way of `ENDINGS`, or lose its `message`."""
        with self._lock:
            self._armed.setdefault(uid, []).append(ending)

    def disarm(self) -> None:
        """Let all pods that end from now on succeed."""
        with self._lock:
            self._armed.clear()

    def hold(self, uid: str, seconds: float) -> None:
        """Let no pod of an evolution end for some seconds."""
        with self._lock:
            self._held.add(uid)
        timer = threading.Timer(seconds, self._release, (uid,))
        timer.daemon = True
        timer.start()

    def wait_for_image(self, uid: str, seconds: float) -> None:
        """Let no pod of an evolution start for some seconds: its image cannot be pulled."""
        with self._lock:
            self._unpulled[uid] = time.monotonic() + seconds

    def _release(self, uid: str) -> None:
        with self._lock:
            self._held.discard(uid)

    def forget(self) -> None:
        """Forget which pods were taken, as after the restore of a snapshot."""
        with self._lock:
            self._taken.clear()

    def pod(self, kind: str, item: Json) -> None:
        """Take a version of a pod."""
        uid, phase = item["metadata"]["uid"], item.get("status", {}).get("phase", "Pending")
        if item["metadata"].get("deletionTimestamp"):
            phase = "Deleting"
        if kind == "DELETED" or phase in ("Succeeded", "Failed"):
            return
        with self._lock:
            if (uid, phase) in self._taken:
                return
            self._taken.add((uid, phase))
        self._put(0.15 if phase == "Running" else 0.0, item)

    def _put(self, delay: float, item: Json | None) -> None:
        with self._lock:
            self._count += 1
            self._queue.put((time.monotonic() + delay, self._count, item))

    def _run(self) -> None:
        while not self._stopped:
            due, _, item = self._queue.get()
            if item is None:
                return
            time.sleep(max(0.0, min(due - time.monotonic(), 0.2)))
            try:
                self._advance(item)
            except ApiError as error:
                if error.status in (0, 409, 429) or error.status >= 500:
                    self._put(0.2, item)

    def _advance(self, pod: Json) -> None:
        evolution = pod["metadata"]["labels"].get(names.LABEL_UID, "")
        if pod["metadata"].get("deletionTimestamp"):
            self._delete(pod)
        elif self._waits_for_image(pod, evolution):
            self._put(0.3, pod)
        elif pod.get("status", {}).get("phase", "Pending") == "Pending":
            self._set_status(pod, "Running", {"running": {"startedAt": _now()}})
        elif evolution in self._held:
            self._put(0.2, pod)
        else:
            self._end(pod, evolution)

    def _waits_for_image(self, pod: Json, evolution: str) -> bool:
        """Return whether a pod waits for its image; its status then tells why."""
        phase = pod.get("status", {}).get("phase", "Pending")
        if phase != "Pending" or self._unpulled.get(evolution, 0.0) < time.monotonic():
            return False
        name = pod["metadata"]["name"]
        if (name, "image") not in self._taken:
            self._taken.add((name, "image"))
            waiting = {"reason": "ImagePullBackOff", "message": "the registry is away"}
            self._set_status(pod, "Pending", {"waiting": waiting})
            self.applied.append((evolution, "image"))
        return True

    def _end(self, pod: Json, evolution: str) -> None:
        text = pod["metadata"]["annotations"][names.ANNOTATION_CONFIG]
        if pod["metadata"]["labels"][names.LABEL_COMPONENT] == names.PURGE:
            self._purge(pod, PurgeConfig.model_validate_json(text))
            return
        with self._lock:
            armed = self._armed.get(evolution)
            ending = armed.pop(0) if armed else ""
        config = StageConfig.model_validate_json(text)
        kind = pod["metadata"]["labels"][names.LABEL_EVOLUTION].rpartition("-")[0]
        if ending == "damaged" and (parent := self._damaged(evolution, config)):
            text = f"the manifest of {parent.value} is missing"
            error = encode_message(FailureMessage(error=text, kind="Campaign", damaged=parent))
            self._terminate(pod, int(ExitCode.DAMAGED_RESULT), "Error", error)
            self.applied.append((evolution, ending))
            return
        if ending in ENDINGS:
            code, reason, condition = ENDINGS[ending]
            error = encode_message(FailureMessage(error=f"it was {ending}", kind="Campaign"))
            self._terminate(pod, code, reason, error if not condition else "", condition)
            self.applied.append((evolution, ending))
            return
        bad = KINDS[kind].bad_input
        if bad and (config.generation, config.stage.value) == bad:
            error = encode_message(FailureMessage(error="no such file", kind="BadInput"))
            self._terminate(pod, int(ExitCode.BAD_INPUT), "Error", error)
            return
        shard = pod["metadata"]["labels"].get(_INDEX, "0")
        message = succeeded(config, kind) if shard == "0" else of_shard(config, int(shard))
        message = "" if ending == "message" else message
        self._terminate(pod, 0, "Completed", message)
        if ending:
            self.applied.append((evolution, ending))
        self.ended.append((evolution, f"{config.generation:03d}", config.stage.slug))

    def _damaged(self, evolution: str, config: StageConfig) -> Stage | None:
        """Return the stage before, whose result is damaged; only a few times for an evolution."""
        order = stages_of(config.generation)
        place = order.index(config.stage) if config.stage in order else 0
        if place == 0 or self.applied.count((evolution, "damaged")) >= _MAX_DAMAGED:
            return None
        return order[place - 1]

    def _purge(self, pod: Json, config: PurgeConfig) -> None:
        """Remove data, if the Job of the pod is permitted to do so, as the program does."""
        owners = [owner["uid"] for owner in pod["metadata"].get("ownerReferences", [])]
        if config.permitted_job not in owners:
            self._terminate(pod, int(ExitCode.BAD_INPUT), "Error", "not permitted")
            return
        self._on_purge(config.run)
        self._terminate(pod, 0, "Completed", "")

    def _terminate(
        self, pod: Json, code: int, reason: str, message: str, condition: str = ""
    ) -> None:
        times = {"startedAt": _now(), "finishedAt": _now()}
        state = {"exitCode": code, "message": message, "reason": reason, **times}
        phase = "Failed" if code else "Succeeded"
        self._set_status(pod, phase, {"terminated": state}, reason, condition)

    def _set_status(
        self, pod: Json, phase: str, state: Json, reason: str = "", condition: str = ""
    ) -> None:
        status = pod_status(phase, state)
        if condition:
            target = {"type": "DisruptionTarget", "status": "True", "reason": condition}
            status = {**status, "conditions": [*status["conditions"], target], "reason": reason}
        self._kube.patch(f"{_path(pod)}/status", {"status": status})

    def _delete(self, pod: Json) -> None:
        """Remove a deleted pod, as a kubelet does once its containers have ended."""
        if pod.get("status", {}).get("phase") in ("Pending", "Running"):
            text = json.dumps({"error": "ended by SIGTERM", "kind": "Terminated"})
            self._terminate(pod, 143, "Error", text)
        self._kube._request("DELETE", _path(pod), None, {"gracePeriodSeconds": 0})


def _path(pod: Json) -> str:
    metadata = pod["metadata"]
    return f"{names.core_path(metadata['namespace'], 'pods')}/{metadata['name']}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
