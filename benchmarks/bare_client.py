"""The bare client creates a Job, waits for it, creates the next, and makes no decision."""

from __future__ import annotations

import threading
import time
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

from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.kube.pages import list_objects
from selfemo_operator.controller.objects import names

#: Concurrent requests, as many as the operator makes.
CLIENT_THREADS = 32
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
class StatusWriter:
    """Writes the status of an evolution before each Job. No operator manages the evolutions."""

    kube: KubeClient
    namespace: str
    status: Json
    newest: dict[str, Json] = field(default_factory=dict)

    def write(self, name: str) -> None:
        """Write the status of an evolution, which is created before the first time."""
        if name not in self.newest:
            manifest = evolution(name)
            manifest["spec"]["managedBy"] = "selfemo.dev/nobody"
            self.newest[name] = self.kube.create(names.evolutions_path(self.namespace), manifest)
        newest = self.newest[name]
        attempt = newest.get("status", {}).get("attempt", 0) + 1
        body = {**newest, "status": {**self.status, "attempt": attempt}}
        path = names.evolution_path((self.namespace, name)) + "/status"
        self.newest[name] = self.kube.replace(path, body)


def run_bare_client(
    kube: KubeClient, load: Load, templates: dict[str, Json], status: Json | None = None
) -> Json:
    """Chain the same Jobs without an operator; return the seconds and the latencies.

    With a status, an evolution for each chain is created, and the status is written before each
    Job.
    """
    count = load.count
    namespace = create_namespace(kube, f"bare-{count}-{int(time.time())}")
    times, stop = JobTimes(), threading.Event()
    threading.Thread(target=times.watch, args=(kube, namespace, stop), daemon=True).start()
    time.sleep(1)
    suffixes = [name.removeprefix("e000") for name in job_names("e000")]
    next_suffix: dict[str, str | None] = {}
    start = time.monotonic()
    pool = ThreadPoolExecutor(CLIENT_THREADS)

    writer = None if status is None else StatusWriter(kube, namespace, status)

    def create(name: str, suffix: str) -> None:
        if writer is not None:
            writer.write(name)
        template = templates[suffix]
        manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name + suffix, "labels": template["labels"]},
            "spec": template["spec"],
        }
        kube.create(names.jobs_path(namespace), manifest)

    begin_times: dict[str, float] = {}

    def create_first(name: str) -> None:
        begin_times[name] = time.monotonic()
        create(name, suffixes[0])

    beginning = threading.Thread(target=load.begin, args=(create_first, pool), daemon=True)
    beginning.start()
    for a, b in zip(suffixes, [*suffixes[1:], None], strict=True):
        next_suffix[a] = b
    handled: set[str] = set()
    deadline = time.monotonic() + 1200
    while len(handled) < count * STAGES and time.monotonic() < deadline:
        with times.changed:
            new = [n for n in times.complete if n not in handled]
            if not new:
                times.changed.wait(1.0)
                continue
        for name in new:
            handled.add(name)
            evolution_name, suffix = name[:4], name[4:]
            following = next_suffix[suffix]
            if following is not None:
                pool.submit(create, evolution_name, following)
    wall = time.monotonic() - start
    beginning.join()
    pool.shutdown()
    stop.set()
    return {"wall": wall, **percentiles(latencies(times, begin_times))}
