"""Ends stage pods as a kubelet would, without running them: for tests of the operator alone.

A real kubelet runs the real stages in `tests/e2e`. Here a stage's result follows from its
configuration (the annotation on the pod), so a test knows what must come out.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from selfemo_api.contract import PurgeConfig, StageConfig
from selfemo_api.results import FailureMessage, StageResult, encode_message
from selfemo_operator.controller.job_watch import list_objects
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects import names
from tests.unit.operator.planner.simulated_world import result_of, score_of

Json = dict[str, Any]
Ending = Callable[[StageConfig, Json], tuple[int, str]]
"""From a stage's configuration and its pod to an exit code and a termination message."""


def succeeding(config: StageConfig, _: Json) -> tuple[int, str]:
    """End well; F1 rises by generation."""
    f1 = 0.30 + 0.05 * config.generation
    result = result_of(config.generation, config.stage, f1, folder=config.output)
    if result.scores:
        sources = [source.name for source in config.spec.dataset.evaluation]
        result = result.model_copy(update={"scores": [score_of(f1, source=s) for s in sources]})
    return 0, encode_message(StageResult.model_validate(result))


def failing(code: int, error: str) -> Ending:
    """End with an exit code and the stage's own words."""
    return lambda _config, _pod: (code, encode_message(FailureMessage(error=error, kind="Test")))


class Pods:
    """A thread that takes each stage pod from Pending to its end.

    Parameters
    ----------
    seconds
        How long a pod runs.
    """

    def __init__(self, kube: KubeClient, namespace: str, seconds: float = 0.0) -> None:
        self._kube = kube
        self._namespace = namespace
        self.seconds = seconds
        self.ending: Ending = succeeding
        self.hold = threading.Event()
        """While set, no pod comes to an end."""
        self.waiting: Json | None = None
        """While set, pods wait for this reason instead of starting."""
        self.ended: list[tuple[int, str, int]] = []
        """Generation, stage and exit code of each pod that ended."""
        self.purged: list[str] = []
        """Runs whose data pods removed."""
        self._began: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        path = names.core_path(self._namespace, "pods")
        while not self._stop.wait(0.05):
            try:
                pods: list[Json] = []
                list_objects(pods.append, self._kube, path, {"labelSelector": names.JOB_SELECTOR})
                for pod in pods:
                    self._carry_on(pod)
            except ApiError as error:
                if error.status not in (0, 404, 409, 429) and error.status < 500:
                    raise

    def _carry_on(self, pod: Json) -> None:
        phase, uid = pod.get("status", {}).get("phase"), pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            self._delete(pod)
        elif phase == "Pending" and self.waiting is not None:
            self._say(pod, "Pending", {"waiting": self.waiting})
        elif phase == "Pending":
            self._began[uid] = time.monotonic()
            self._say(pod, "Running", {"running": {"startedAt": _now()}})
        elif phase == "Running" and not self.hold.is_set() and self._is_over(uid):
            self._end(pod)

    def _is_over(self, uid: str) -> bool:
        return time.monotonic() - self._began.setdefault(uid, 0.0) >= self.seconds

    def _end(self, pod: Json) -> None:
        text = pod["metadata"]["annotations"][names.ANNOTATION_CONFIG]
        if pod["metadata"]["labels"][names.LABEL_COMPONENT] == names.PURGE:
            self.purged.append(PurgeConfig.model_validate_json(text).run)
            code, message = 0, ""
        else:
            config = StageConfig.model_validate_json(text)
            code, message = self.ending(config, pod)
            self.ended.append((config.generation, config.stage.value, code))
        ended = {"exitCode": code, "message": message, "reason": "Error" if code else "Completed"}
        times = {"startedAt": _now(), "finishedAt": _now()}
        self._say(pod, "Failed" if code else "Succeeded", {"terminated": {**ended, **times}})

    def _say(self, pod: Json, phase: str, state: Json) -> None:
        container = {
            "name": names.CONTAINER,
            "image": "none",
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        ready = "True" if phase == "Running" else "False"
        conditions = [
            {"type": "Ready", "status": ready},
            {"type": "PodScheduled", "status": "True"},
        ]
        status = {"phase": phase, "containerStatuses": [container], "conditions": conditions}
        before = pod.get("status", {})
        if before.get("phase") == phase and phase == "Pending" and "containerStatuses" in before:
            return
        path = f"{names.core_path(self._namespace, 'pods')}/{pod['metadata']['name']}/status"
        self._kube.patch(path, {"status": status})

    def _delete(self, pod: Json) -> None:
        """Let a deleted pod go, as a kubelet does once its containers have ended."""
        path = f"{names.core_path(self._namespace, 'pods')}/{pod['metadata']['name']}"
        if pod.get("status", {}).get("phase") in ("Pending", "Running"):
            text = json.dumps({"error": "ended by SIGTERM", "kind": "Terminated"})
            times = {"startedAt": _now(), "finishedAt": _now()}
            ended = {"exitCode": 143, "message": text, "reason": "Error", **times}
            self._say(pod, "Failed", {"terminated": ended})
        self._kube._request("DELETE", path, None, {"gracePeriodSeconds": 0})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
