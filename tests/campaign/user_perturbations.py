"""Perturbations that users, the platform and other controllers cause at the API server itself."""

from __future__ import annotations

import time

from selfemo_operator.controller.kube.client import ApiError
from selfemo_operator.controller.objects import names
from tests.campaign.model import Perturbation
from tests.campaign.perturbations import register
from tests.campaign.recording import ObjectRecord
from tests.campaign.world import World

_HOST = [{"template": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}}]


def _jobs(world: World, this: Perturbation, *, ended: bool) -> list[ObjectRecord]:
    record = world.record_of(this.target)
    if record is None:
        return []
    with world.recorder.lock:
        jobs = world.recording.jobs_of(record.uid)
        return [j for j in jobs if j.deleted is None and bool(j.result) == ended]


def _delete(world: World, job: ObjectRecord, policy: str = "Background") -> None:
    with world.recorder.lock:
        world.recording.by_hand.append((job.evolution, "job-deleted"))
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
    record = world.record_of(this.target)
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
    record = world.record_of(this.target)
    if record is None or world.edit(this.target, {"suspend": True}) is None:
        return "it is gone"
    with world.recorder.lock:
        world.recording.by_hand.append((record.uid, "suspended"))
    world.later(lambda: _resume(world, this.target), float(this.amount))
    return None


def _resume(world: World, name: str) -> None:
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
    record = world.record_of(this.target)
    if record is None or (this.amount == 3 and this.target.startswith("queued")):
        return "it is gone, or it has a queue"
    with world.recorder.lock:
        world.recording.by_hand.append((record.uid, "edited"))
    if world.edit(this.target, there) is None:
        return "it is gone"
    world.later(lambda: world.insist(lambda: world.edit(this.target, back)), 1.0)
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
