"""The bare client: it creates a Job, waits for it, creates the next, and decides nothing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chains import STAGES, Load, Seen, chain, evolution, latencies, spread
from tests.integration.operator.api import create_namespace

from selfemo_operator.controller.job_watch import list_objects
from selfemo_operator.controller.kube.client import KubeClient
from selfemo_operator.controller.objects import names

#: Requests at once: as many as the operator's passes.
CLIENT_THREADS = 32
Json = dict[str, Any]

#: Labels of pods that are not the Job controller's own.
OURS = ("app.kubernetes.io/", "selfemo.dev/")
KEPT = (
    "completionMode",
    "completions",
    "parallelism",
    "backoffLimit",
    "podReplacementPolicy",
    "podFailurePolicy",
    "ttlSecondsAfterFinished",
)


def captured(kube: KubeClient, namespace: str) -> dict[str, Json]:
    """Return one Job of each stage as the operator made it, for the bare client."""
    query = {"labelSelector": f"{names.LABEL_EVOLUTION}=e000"}
    found: dict[str, Json] = {}
    jobs: list[Json] = []
    list_objects(jobs.append, kube, names.jobs_path(namespace), query)
    for job in jobs:
        pod = job["spec"]["template"]
        labels_ = {k: v for k, v in pod["metadata"]["labels"].items() if k.startswith(OURS)}
        kept = {k: job["spec"][k] for k in KEPT if k in job["spec"]}
        kept["template"] = {
            "metadata": {"labels": labels_, "annotations": pod["metadata"]["annotations"]},
            "spec": pod["spec"],
        }
        suffix = job["metadata"]["name"].removeprefix("e000")
        found[suffix] = {"labels": job["metadata"]["labels"], "spec": kept}
    return found


@dataclass
class Statuses:
    """Evolutions of nobody, whose status is written before each Job."""

    kube: KubeClient
    namespace: str
    status: Json
    newest: dict[str, Json] = field(default_factory=dict)

    def write(self, name: str) -> None:
        """Write one anew; the first time it is created as well."""
        if name not in self.newest:
            made = evolution(name)
            made["spec"]["managedBy"] = "selfemo.dev/nobody"
            self.newest[name] = self.kube.create(names.evolutions_path(self.namespace), made)
        newest = self.newest[name]
        attempt = newest.get("status", {}).get("attempt", 0) + 1
        body = {**newest, "status": {**self.status, "attempt": attempt}}
        path = names.evolution_path((self.namespace, name)) + "/status"
        self.newest[name] = self.kube.replace(path, body)


def bare(
    kube: KubeClient, load: Load, template: dict[str, Json], status: Json | None = None
) -> Json:
    """Chain the same Jobs without an operator; return the seconds, and its own waits.

    With a status, an evolution beside each chain is given it before each Job.
    """
    count = load.count
    namespace = create_namespace(kube, f"bare-{count}-{int(time.time())}")
    seen, stop = Seen(), threading.Event()
    threading.Thread(target=seen.watch, args=(kube, namespace, stop), daemon=True).start()
    time.sleep(1)
    suffixes = [name.removeprefix("e000") for name in chain("e000")]
    following: dict[str, str | None] = {}
    start = time.monotonic()
    pool = ThreadPoolExecutor(CLIENT_THREADS)

    statuses = None if status is None else Statuses(kube, namespace, status)

    def create(name: str, suffix: str) -> None:
        if statuses is not None:
            statuses.write(name)
        made = template[suffix]
        manifest = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name + suffix, "labels": made["labels"]},
            "spec": made["spec"],
        }
        kube.create(names.jobs_path(namespace), manifest)

    begun: dict[str, float] = {}

    def first(name: str) -> None:
        begun[name] = time.monotonic()
        create(name, suffixes[0])

    beginning = threading.Thread(target=load.begin, args=(first, pool), daemon=True)
    beginning.start()
    for a, b in zip(suffixes, [*suffixes[1:], None], strict=True):
        following[a] = b
    handled: set[str] = set()
    deadline = time.monotonic() + 1200
    while len(handled) < count * STAGES and time.monotonic() < deadline:
        with seen.changed:
            new = [n for n in seen.complete if n not in handled]
            if not new:
                seen.changed.wait(1.0)
                continue
        for name in new:
            handled.add(name)
            evolution_name, suffix = name[:4], name[4:]
            after = following[suffix]
            if after is not None:
                pool.submit(create, evolution_name, after)
    wall = time.monotonic() - start
    beginning.join()
    pool.shutdown()
    stop.set()
    return {"wall": wall, **spread(latencies(seen, begun))}
