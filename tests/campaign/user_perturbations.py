"""Perturbations that users, the platform and other controllers cause at the API server itself."""

from __future__ import annotations

import time

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from tests.campaign.faults import Window, is_about_lease
from tests.campaign.model import Perturbation
from tests.campaign.perturbations import register
from tests.campaign.recording import ObjectRecord
from tests.campaign.world import World
from tests.integration.operator.api import create_namespace, delete_namespace, namespaces

_HOST = [{"template": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}}]


def _jobs(world: World, this: Perturbation, *, ended: bool) -> list[ObjectRecord]:
    record = world.running(this.target)
    if record is None:
        return []
    with world.recorder.lock:
        jobs = world.recording.jobs_of(record.uid)
        return [j for j in jobs if j.deleted is None and bool(j.result) == ended]


def _delete(world: World, job: ObjectRecord, policy: str = "Background") -> None:
    with world.recorder.lock:
        world.recording.by_hand.append((job.evolution, "job-deleted"))
        if policy == "Orphan":
            world.recording.orphaned.add(job.uid)
    options = {"propagationPolicy": policy, "preconditions": {"uid": job.uid}}
    try:
        world.kube._request("DELETE", names.job_path((job.namespace, job.name)), None, options)
    except ApiError as error:
        if error.status not in (404, 409):
            raise


@register("job-deleted", "beside", weight=6, amounts=(0, 1, 2), targets=True)
def _job_deleted(world: World, this: Perturbation) -> str | None:
    jobs = _jobs(world, this, ended=False)
    if not jobs:
        return "it has no Job"
    _delete(world, jobs[-1], ("Background", "Foreground", "Orphan")[this.amount])
    return None


@register("finished-job-deleted", "after", weight=6, targets=True)
def _finished_job_deleted(world: World, this: Perturbation) -> str | None:
    jobs = _jobs(world, this, ended=True)
    if not jobs:
        return "it has no Job that has ended"
    _delete(world, jobs[-1])  # as a TTL controller does, perhaps before it is observed
    return None


@register("pod-deleted", "beside", weight=6, targets=True)
def _pod_deleted(world: World, this: Perturbation) -> str | None:
    record = world.running(this.target)
    with world.recorder.lock:
        pods = [
            p
            for p in world.recording.pods.values()
            if record is not None and p.evolution == record.uid and p.deleted is None
        ]
        if not pods:
            return "it has no pod"
        world.recording.by_hand.append((pods[-1].evolution, "pod-deleted"))
    path = f"{names.core_path(pods[-1].namespace, 'pods')}/{pods[-1].name}"
    try:
        world.kube.delete(path, pods[-1].uid)
    except ApiError as error:
        if error.status != 404:
            raise
    return None


@register("queue-suspends", "beside", weight=2, targets=True)
def _queue_suspends(world: World, this: Perturbation) -> str | None:
    """Suspend a Job and resume it, as Kueue does with those of a queue."""
    jobs = _jobs(world, this, ended=False)
    if not jobs or names.LABEL_QUEUE not in jobs[-1].labels:
        return "it has no Job in a queue"
    path = names.job_path((jobs[-1].namespace, jobs[-1].name))
    with world.recorder.lock:
        world.recording.by_hand.append((jobs[-1].evolution, "queue-suspends"))
    try:
        world.kube.patch(path, {"spec": {"suspend": True}})
        time.sleep(1.0)
        world.kube.patch(path, {"spec": {"suspend": False}})
    except ApiError as error:
        if error.status not in (404, 409, 422):
            raise
    return None


# Users --------------------------------------------------------------------------------------------


@register("suspend-and-resume", "beside", weight=6, amounts=(1, 3), targets=True)
def _suspend(world: World, this: Perturbation) -> str | None:
    record = world.running(this.target)
    if record is None or record.name in world.suspended:
        return "all have ended"
    with world.recorder.lock:
        world.recording.by_hand.append((record.uid, "suspended"))
    world.edit(record.name, {"suspend": True})
    world.later(lambda: resume(world, record.name), float(this.amount))
    return None


@register("suspended-to-the-end", "beside", weight=3, targets=True)
def _suspended(world: World, this: Perturbation) -> str | None:
    """Suspend an evolution until all others have ended."""
    record = world.running(this.target)
    if record is None:
        return "all have ended"
    world.suspended.add(record.name)
    with world.recorder.lock:
        world.recording.by_hand.append((record.uid, "suspended"))
    world.edit(record.name, {"suspend": True})
    return None


def resume(world: World, name: str) -> None:
    """Resume a suspended evolution."""
    if name not in world.suspended:
        world.insist(lambda: world.edit(name, {"suspend": False}))


@register("edit-and-back", "beside", weight=5, amounts=(0, 1, 2, 3), targets=True)
def _edited(world: World, this: Perturbation) -> str | None:
    """Edit settings that apply at once and change no result, and set them back."""
    edits = (
        ({"deadlines": {"stageActiveSeconds": 7200}}, {"deadlines": {"stageActiveSeconds": None}}),
        ({"deadlines": {"runActiveSeconds": 90000}}, {"deadlines": {"runActiveSeconds": None}}),
        ({"failurePolicy": {"maxAttempts": 99}}, {"failurePolicy": {"maxAttempts": 100}}),
        ({"queue": {"name": "other"}}, {"queue": None}),
    )
    there, back = edits[this.amount]
    record = world.running(this.target)
    if record is None or (this.amount == 3 and record.name.startswith("queued")):
        return "all have ended, or it has a queue"
    with world.recorder.lock:
        world.recording.by_hand.append((record.uid, "edited"))
    if world.edit(record.name, there) is None:
        return "it is gone"
    world.later(lambda: world.insist(lambda: world.edit(record.name, back)), 1.0)
    return None


@register("deleted-and-created", "beside", weight=5, targets=True)
def _recreated(world: World, this: Perturbation) -> str | None:
    """Delete an evolution, and create another of its name at once."""
    if world.delete(this.target) is None:
        return "it is gone"
    world.create(this.target)
    return None


@register("retained-while-away", "beside", weight=3, targets=True)
def _retained(world: World, this: Perturbation) -> str | None:
    """Edit `Delete` to `Retain`, and delete, while no operator runs."""
    if not this.target.startswith("purged") or world.record_of(this.target) is None:
        return "its data is not deleted, or it is gone"
    world.operator.kill(restart=False)
    try:
        if world.edit(this.target, {"storage": {"whenDeleted": "Retain"}}) is None:
            return "it is gone"
        world.delete(this.target)
    finally:
        world.operator.start()
    world.create(this.target)
    return None


@register("retained-and-deleted", "beside", weight=3, targets=True)
def _retained_and_deleted(world: World, this: Perturbation) -> str | None:
    """Edit `Delete` to `Retain` and delete at once, beside the operator."""
    if not this.target.startswith("purged"):
        return "its data is not deleted"
    if world.edit(this.target, {"storage": {"whenDeleted": "Retain"}}) is None:
        return "it is gone"
    world.delete(this.target)
    world.create(this.target)
    return None


@register("refused-and-back", "beside", weight=3, targets=True)
def _refused(world: World, this: Perturbation) -> str | None:
    """Edit the pod template to one that is refused, and set it back."""
    record = world.record_of(this.target)
    templates = [{"template": {"schedulerName": "none"}}]
    if record is None or world.edit(this.target, {"podTemplate": templates + _HOST}) is None:
        return "it is gone"
    with world.recorder.lock:
        world.recording.by_hand.append((record.uid, "refused"))
    back = {"podTemplate": templates}
    world.later(lambda: world.insist(lambda: world.edit(this.target, back)), 1.5)
    return None


@register("foreign-annotations", "beside", weight=2, targets=True)
def _annotations(world: World, this: Perturbation) -> str | None:
    """Leave what an older operator may have left: annotations, labels, and a finalizer of kopf's
    name without effect."""
    path = names.evolution_path((world.namespace_of(this.target), this.target))
    left = {
        "kopf.zalando.org/last-handled-configuration": '{"spec":{"old":true}}\n',
        "selfemo.dev/handled": "1",
    }
    try:
        world.kube.patch(path, {"metadata": {"annotations": left, "labels": {"old": "yes"}}})
    except ApiError as error:
        if error.status == 404:
            return "it is gone"
        raise
    return None


# Operators ----------------------------------------------------------------------------------------


@register("second-operator", "beside", weight=3, amounts=(3, 6))
def _second(world: World, this: Perturbation) -> str | None:
    """Run another operator for some seconds, as when a Lease is lost in the middle of a write."""
    other = world.add_operator(f"operator-{len(world.operators)}")
    other.start()
    world.later(lambda: other.kill(restart=False), float(this.amount))
    return None


@register("operator-paused", "beside", weight=3, amounts=(1, 3))
def _paused(world: World, this: Perturbation) -> str | None:
    world.operator.pause(float(this.amount))
    return None


@register("operator-stopped", "beside", weight=3)
def _stopped(world: World, _: Perturbation) -> str | None:
    """End the operator with SIGTERM in the middle of its work, as a rollout does."""
    code = world.operator.stop()
    with world.recorder.lock:
        world.recording.stops.append(code)
    world.operator.start()
    return None


@register("leader-frozen", "beside", weight=0, amounts=(17,))
def _frozen(world: World, this: Perturbation) -> str | None:
    """Freeze the holder of the Lease until another has taken it, and let it go on."""
    world.leader().pause(float(this.amount))
    return None


@register("lease-refused", "beside", weight=2, amounts=(11,), armed=True)
def _lease_refused(world: World, this: Perturbation) -> str | None:
    """Refuse all requests about the Lease until its holder must stop."""
    until = time.monotonic() + float(this.amount)
    window = Window("refuse", is_about_lease, until, code=503, label=this.kind)
    world.faults.add(window)
    return None


@register("namespace-deleted", "beside", weight=1)
def _namespace_deleted(world: World, _: Perturbation) -> str | None:
    """Delete a namespace with all in it, and create it and its evolutions again."""
    with world.namespace_lock:  # the scenario may delete it a second time meanwhile
        _renew_namespace(world, world.namespaces[1])
    return None


def _renew_namespace(world: World, namespace: str) -> None:
    """Delete the second namespace, and create it and its evolutions again."""
    with world.recorder.lock:
        lost = [r.uid for r in world.recording.live() if r.namespace == namespace]
        world.recording.unpurged.update(lost)
    delete_namespace(world.kube, namespace)
    deadline = time.monotonic() + 60.0
    while namespace in namespaces(world.kube):
        if time.monotonic() > deadline:
            raise AssertionError(f"the namespace {namespace} is not deleted within 60 s")
        time.sleep(0.2)
    create_namespace(world.kube, namespace)
    for evolution in world.scenario.evolutions:
        if evolution.namespace == 1:
            world.create(evolution.name)
