"""The bare client creates a Job, waits for it, creates the next, and makes no decision."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.job_chains import (
    STAGES,
    JobTimes,
    Load,
    evolution,
    job_names,
    latencies,
    percentiles,
)
from tests.integration.operator.api import create_namespace

from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.kube.pages import list_objects
from selfemo_operator.controller.objects import names

#: Concurrent requests, as many as the operator makes.
CLIENT_THREADS = 32
#: Threads that create the evolutions, as users do.
USER_THREADS = 8
#: The longest time in seconds that a load may take.
LONGEST = 2400.0
Json = dict[str, Any]

#: Prefixes of the pod labels that the operator sets; the Job controller sets the others.
OPERATOR_LABELS = ("app.kubernetes.io/", "selfemo.dev/")
#: Fields of a Job's spec that are copied.
COPIED_FIELDS = (
    "completionMode",
    "completions",
    "parallelism",
    "backoffLimit",
    "podReplacementPolicy",
    "podFailurePolicy",
    "ttlSecondsAfterFinished",
)


def capture_jobs(kube: KubeClient, namespace: str) -> dict[str, Json]:
    """Return one Job of each stage as the operator made it, by the end of its name."""
    query = {"labelSelector": f"{names.LABEL_EVOLUTION}=e000"}
    templates: dict[str, Json] = {}
    jobs: list[Json] = []
    list_objects(jobs.append, kube, names.jobs_path(namespace), query)
    for job in jobs:
        pod = job["spec"]["template"]
        labels = pod["metadata"]["labels"]
        spec = {k: job["spec"][k] for k in COPIED_FIELDS if k in job["spec"]}
        spec["template"] = {
            "metadata": {
                "labels": {k: v for k, v in labels.items() if k.startswith(OPERATOR_LABELS)},
                "annotations": pod["metadata"]["annotations"],
            },
            "spec": pod["spec"],
        }
        suffix = job["metadata"]["name"].removeprefix("e000")
        templates[suffix] = {"labels": job["metadata"]["labels"], "spec": spec}
    return templates


@dataclass
class StatusRecorder:
    """The statuses that the operator writes for one evolution, in order."""

    statuses: list[Json] = field(default_factory=list)

    def steps(self) -> list[list[Json]]:
        """Return the statuses that are written before each Job, and those at the end."""
        steps: dict[tuple[Any, ...], list[Json]] = {}
        for status in self.statuses:
            place = tuple(map(status.get, ("generation", "stage", "attempt", "completionTime")))
            steps.setdefault(place, []).append(status)
        assert len(steps) == STAGES + 1, [*steps]
        return [*steps.values()]

    def watch(self, kube: KubeClient, namespace: str, stop: threading.Event) -> None:
        """Record the statuses of the evolution of a namespace until stopped."""
        path = names.evolutions_path(namespace)
        version = kube.get(path)["metadata"]["resourceVersion"]
        while not stop.is_set():
            query = {"resourceVersion": version, "timeoutSeconds": "60"}
            try:
                for event in kube.watch(path, query, 90):
                    version = event["object"]["metadata"]["resourceVersion"]
                    status = event["object"].get("status")
                    if status and status not in self.statuses[-1:]:
                        self.statuses.append(status)
            except ApiError:
                continue


@dataclass
class StatusWriter:
    """Writes the statuses of evolutions that no operator manages."""

    kube: KubeClient
    namespace: str
    steps: Sequence[Sequence[Json]]
    newest: dict[str, Json] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)

    def create(self, name: str) -> None:
        """Create an evolution."""
        manifest = evolution(name)
        manifest["spec"]["managedBy"] = "selfemo.dev/nobody"
        self.newest[name] = self.kube.create(names.evolutions_path(self.namespace), manifest)

    def write(self, name: str) -> None:
        """Write the statuses of the next step of an evolution."""
        number = self.written.get(name, 0)
        self.written[name] = number + 1
        path = names.evolution_path((self.namespace, name)) + "/status"
        for status in self.steps[number]:
            body = {**self.newest[name], "status": status}
            self.newest[name] = self.kube.replace(path, body)


def run_bare_client(
    kube: KubeClient,
    load: Load,
    templates: dict[str, Json],
    steps: Sequence[Sequence[Json]] = (),
) -> Json:
    """Chain the same Jobs without an operator; return the seconds and the latencies.

    With the statuses of each step, each chain has an evolution, and its statuses are written as the
    operator writes them: before each Job, and at the end. The evolutions are created as for the
    operator, and a chain's first event is the creation of its evolution.
    """
    namespace = create_namespace(kube, f"bare-{load.count}-{int(time.time())}")
    times, stop = JobTimes(), threading.Event()
    threading.Thread(target=times.watch, args=(kube, namespace, stop), daemon=True).start()
    time.sleep(1)
    suffixes = [name.removeprefix("e000") for name in job_names("e000")]
    following = dict(zip(suffixes, [*suffixes[1:], None], strict=True))
    writer = StatusWriter(kube, namespace, steps) if steps else None
    pool, users = ThreadPoolExecutor(CLIENT_THREADS), ThreadPoolExecutor(USER_THREADS)
    errors: list[BaseException] = []

    def create(name: str, suffix: str | None) -> None:
        try:
            if writer is not None:
                writer.write(name)
            if suffix is not None:
                kube.create(names.jobs_path(namespace), _job(name + suffix, templates[suffix]))
        except BaseException as error:
            errors.append(error)
            raise

    begin_times: dict[str, float] = {}

    def begin(name: str) -> None:
        begin_times[name] = time.monotonic()
        if writer is None:
            create(name, suffixes[0])
        else:
            writer.create(name)
            pool.submit(create, name, suffixes[0])

    start, cpu_before = time.monotonic(), time.process_time()
    beginners = pool if writer is None else users
    threading.Thread(target=load.begin, args=(begin, beginners), daemon=True).start()
    for _ in range(load.count * STAGES):
        name = times.ended.get(timeout=LONGEST)
        suffix = following[name[4:]]
        if suffix is not None or writer is not None:
            pool.submit(create, name[:4], suffix)
        if errors:
            raise errors[0]
    pool.shutdown()
    users.shutdown()
    wall, cpu = time.monotonic() - start, time.process_time() - cpu_before
    stop.set()
    waits = percentiles(latencies(times, begin_times))
    return {"namespace": namespace, "wall": wall, "cpu": cpu, **waits}


def _job(name: str, template: Json) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": template["labels"]},
        "spec": template["spec"],
    }
