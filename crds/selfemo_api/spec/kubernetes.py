"""How stage pods are placed, queued, retried and limited in time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, JsonObject, ShortText
from selfemo_api.spec.fields import EXPERT

Text = Annotated[str, Field(max_length=1024)]
StringMap = Annotated[dict[str, Text], Field(max_length=64)]
ObjectList = Annotated[list[JsonObject], Field(max_length=64)]


class PodTemplate(ApiModel):
    """Fields that are added to, or replaced in, the pod that selfemo builds for a stage."""

    image: ShortText | None = None
    """The image of the stage's container. Unset: the image that the operator is installed with."""
    image_pull_policy: Annotated[str, Field(pattern=r"^(Always|IfNotPresent|Never)$")] | None = None
    """When the image is pulled: `Always`, `IfNotPresent` or `Never`."""
    image_pull_secrets: ObjectList | None = None
    """References to Secrets for pulling the image. Entries are merged by name."""
    labels: StringMap | None = None
    """Labels to add to the pod. Labels that the operator sets cannot be replaced."""
    annotations: StringMap | None = None
    """Annotations to add to the pod. Annotations that the operator sets cannot be replaced."""
    node_selector: StringMap | None = None
    """Labels that a node must have to run the pod. They are merged with those set before."""
    tolerations: ObjectList | None = None
    """Tolerations to add to the pod."""
    affinity: JsonObject | None = None
    """The pod's affinity."""
    priority_class_name: ShortText | None = None
    """The name of the pod's PriorityClass."""
    scheduler_name: ShortText | None = None
    """The name of the scheduler that places the pod."""
    runtime_class_name: ShortText | None = None
    """The name of the pod's RuntimeClass."""
    service_account_name: ShortText | None = None
    """The name of the pod's ServiceAccount."""
    volumes: ObjectList | None = None
    """Volumes to add to the pod. Entries are merged by name."""
    volume_mounts: ObjectList | None = None
    """Volume mounts to add to the container. Entries are merged by mount path."""
    env: ObjectList | None = None
    """Environment variables to add to the container. Entries are merged by name."""
    resources: JsonObject | None = None
    """Resource requests and limits of the container, merged with those that the operator sets."""
    security_context: JsonObject | None = None
    """Security settings, merged with those that the operator sets. Fields that only a container
    has apply to the container, all others to the pod."""


class PodTemplates(ApiModel):
    """Templates of stage pods. `shared` is applied first, then the template of the stage."""

    shared: PodTemplate | None = None
    """The template that is applied to the pods of all stages."""
    self_play: PodTemplate | None = None
    """The template of SelfPlay pods."""
    score: PodTemplate | None = None
    """The template of Score pods."""
    flywheel: PodTemplate | None = None
    """The template of Flywheel pods."""
    train: PodTemplate | None = None
    """The template of Train pods."""
    evaluate: PodTemplate | None = None
    """The template of Evaluate pods."""


class Queue(ApiModel):
    """The Kueue queue of the stage Jobs."""

    name: ShortText
    """The name of the LocalQueue."""
    priority_class: ShortText | None = None
    """The name of the WorkloadPriorityClass. Unset: none."""


class FailurePolicy(ApiModel):
    """How often a stage is retried."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """The largest number of attempts of one stage. Attempts that are lost to causes outside the
    stage do not count. A stage that fails because of bad input is never retried."""
    max_disruptions: Annotated[int, Field(ge=0, le=1000), EXPERT] = 20
    """The number of attempts of one stage that may be lost to causes outside it: preemption, a
    lost node, or unavailable storage. They are counted apart from `maxAttempts`."""
    backoff_seconds: Annotated[int, Field(ge=0, le=86_400), EXPERT] = 10
    """The wait in seconds before the second attempt. It doubles with each further attempt, up to
    ten minutes."""


class Deadlines(ApiModel):
    """Limits in seconds. A limit that is unset and has no default does not apply."""

    stage_active_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """The longest run of one stage Job in seconds, from its start. Suspended time does not count.
    Unset: no limit."""
    stage_pending_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 1800
    """The longest wait in seconds for a pod to start, for scheduling and pulling its image. Waiting
    in a queue does not count. Half an hour allows for a slow pull of a large image."""
    run_active_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = None
    """The longest run of the whole evolution in seconds. Suspended time does not count. Unset: no
    limit."""
