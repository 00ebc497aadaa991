"""A fake kubelet: it starts and ends stage pods without running them.

In `tests/e2e`, a real kubelet runs the real stages. Here the result of a stage follows from its
configuration (the annotation of the pod), so a test knows the expected result.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from selfemo_api.contract import ExitCode, PurgeConfig, StageConfig
from selfemo_api.results import FailureMessage, StageResult, encode_message
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.pages import list_objects
from selfemo_operator.controller.objects import names
from tests.unit.operator.planner.simulated_world import result_of, score_of

Json = dict[str, Any]
Ending = Callable[[StageConfig, Json], tuple[int, str]]
"""Returns the exit code and the termination message for a stage's configuration and its pod."""


def succeeding(config: StageConfig, _: Json) -> tuple[int, str]:
    """Return a success. The F1 rises with each generation."""
    return 0, success_message(config, 0.30 + 0.05 * config.generation)


def success_message(config: StageConfig, f1: float) -> str:
    """Return the termination message of a stage that has succeeded, with an F1 on each source."""
    result = result_of(config.generation, config.stage, f1, folder=config.output)
    if result.scores:
        sources = [source.name for source in config.spec.dataset.evaluation]
        result = result.model_copy(update={"scores": [score_of(f1, source=s) for s in sources]})
    return encode_message(StageResult.model_validate(result))


def pod_status(phase: str, state: Json) -> Json:
    """Return the status of a stage pod, as a kubelet writes it."""
    container = {
        "name": names.CONTAINER,
        "image": "none",
        "imageID": "",
        "ready": phase == "Running",
        "restartCount": 0,
        "state": state,
    }
    conditions = [
        {"type": "Ready", "status": "True" if phase == "Running" else "False"},
        {"type": "PodScheduled", "status": "True"},
    ]
    return {"phase": phase, "containerStatuses": [container], "conditions": conditions}


def failing(code: int, error: str) -> Ending:
    """Return a failure with an exit code and an error message."""
    return lambda _config, _pod: (code, encode_message(FailureMessage(error=error, kind="Test")))


class FakeKubelet:
    """A thread that takes each stage pod from `Pending` to its end.

    Parameters
    ----------
    kube
        The client of the API server.
    namespace
        The namespace of the pods.
    seconds
        The time that a pod runs.
    """

    def __init__(self, kube: KubeClient, namespace: str, seconds: float = 0.0) -> None:
        self._kube = kube
        self._namespace = namespace
        self.seconds = seconds
        self.ending: Ending = succeeding
        self.hold = threading.Event()
        """While it is set, no pod ends."""
        self.waiting: Json | None = None
        """The waiting state of pods. While it is set, pods do not start."""
        self.ended: list[tuple[int, str, int]] = []
        """The generation, stage and exit code of each ended pod."""
        self.purged: list[str] = []
        """The runs whose data was removed."""
        self._started: dict[str, float] = {}
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
                    self._advance(pod)
            except ApiError as error:
                if error.status not in (0, 404, 409, 429) and error.status < 500:
                    raise

    def _advance(self, pod: Json) -> None:
        phase, uid = pod.get("status", {}).get("phase"), pod["metadata"]["uid"]
        if pod["metadata"].get("deletionTimestamp"):
            self._delete(pod)
        elif phase == "Pending" and self.waiting is not None:
            self._set_status(pod, "Pending", {"waiting": self.waiting})
        elif phase == "Pending":
            self._started[uid] = time.monotonic()
            self._set_status(pod, "Running", {"running": {"startedAt": _now()}})
        elif phase == "Running" and not self.hold.is_set() and self._is_finished(uid):
            self._end(pod)

    def _is_finished(self, uid: str) -> bool:
        return time.monotonic() - self._started.setdefault(uid, 0.0) >= self.seconds

    def _end(self, pod: Json) -> None:
        text = pod["metadata"]["annotations"][names.ANNOTATION_CONFIG]
        if pod["metadata"]["labels"][names.LABEL_COMPONENT] == names.PURGE:
            code, message = self._purge(PurgeConfig.model_validate_json(text), pod)
        else:
            config = StageConfig.model_validate_json(text)
            code, message = self.ending(config, pod)
            self.ended.append((config.generation, config.stage.value, code))
        reason = "Error" if code else "Completed"
        terminated = {"exitCode": code, "message": message, "reason": reason}
        times = {"startedAt": _now(), "finishedAt": _now()}
        self._set_status(
            pod, "Failed" if code else "Succeeded", {"terminated": {**terminated, **times}}
        )

    def _purge(self, purge: PurgeConfig, pod: Json) -> tuple[int, str]:
        """Remove the data, as the program does: only with the permission for the pod's own Job."""
        if purge.permitted_job != pod["metadata"]["labels"][names.LABEL_JOB_UID]:
            return int(ExitCode.BAD_INPUT), encode_message(FailureMessage(error="no", kind="Test"))
        self.purged.append(purge.run)
        return 0, ""

    def _set_status(self, pod: Json, phase: str, state: Json) -> None:
        before = pod.get("status", {})
        if before.get("phase") == phase and phase == "Pending" and "containerStatuses" in before:
            return
        path = f"{names.core_path(self._namespace, 'pods')}/{pod['metadata']['name']}/status"
        self._kube.patch(path, {"status": pod_status(phase, state)})

    def _delete(self, pod: Json) -> None:
        """Remove a deleted pod, as a kubelet does once its containers have ended."""
        path = f"{names.core_path(self._namespace, 'pods')}/{pod['metadata']['name']}"
        if pod.get("status", {}).get("phase") in ("Pending", "Running"):
            text = json.dumps({"error": "ended by SIGTERM", "kind": "Terminated"})
            times = {"startedAt": _now(), "finishedAt": _now()}
            terminated = {"exitCode": 143, "message": text, "reason": "Error", **times}
            self._set_status(pod, "Failed", {"terminated": terminated})
        self._kube._request("DELETE", path, None, {"gracePeriodSeconds": 0})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
