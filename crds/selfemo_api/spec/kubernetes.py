"""How stage pods are placed, queued, retried and limited in time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsSubdomain, JsonObject, ShortText
from selfemo_api.spec.fields import EXPERT
from selfemo_api.stages import Stage

Text = Annotated[str, Field(max_length=1024)]
StringMap = Annotated[dict[str, Text], Field(max_length=64)]
ObjectList = Annotated[list[JsonObject], Field(max_length=64)]
#: The name of an object that becomes the value of a label, which has at most 63 characters.
LabelName = Annotated[DnsSubdomain, Field(max_length=63)]


class PodTemplate(ApiModel):
    """Fields that are added to, or replaced in, the pod that selfemo builds for a stage."""

    image: ShortText | None = None
    """The image of the stage's container. Defaults to the image that the operator is installed
    with."""
    image_pull_policy: Annotated[str, Field(pattern=r"^(Always|IfNotPresent|Never)$")] | None = None
    """When the image is pulled: `Always`, `IfNotPresent` or `Never`."""
    image_pull_secrets: ObjectList | None = None
    """References to Secrets for pulling the image. Entries are merged by name."""
    labels: StringMap | None = None
    """Labels to add to the pod. Labels that the operator sets cannot be replaced."""
    annotations: StringMap | None = None
    """Annotations to add to the pod. Annotations that the operator sets cannot be replaced."""
    node_selector: StringMap | None = None
    """Labels that a node must have to run the pod. They are merged with those already set."""
    tolerations: ObjectList | None = None
    """Tolerations to add to the pod."""
    affinity: JsonObject | None = None
    """The pod's affinity."""
    topology_spread_constraints: ObjectList | None = None
    """Topology spread constraints to add to the pod."""
    priority_class_name: DnsSubdomain | None = None
    """The name of the pod's PriorityClass."""
    scheduler_name: ShortText | None = None
    """The name of the scheduler that places the pod."""
    runtime_class_name: DnsSubdomain | None = None
    """The name of the pod's RuntimeClass."""
    service_account_name: DnsSubdomain | None = None
    """The name of the pod's ServiceAccount."""
    host_aliases: ObjectList | None = None
    """Entries to add to the pod's `/etc/hosts`. Entries are merged by IP address."""
    dns_config: JsonObject | None = None
    """The pod's DNS settings: name servers, search domains and resolver options."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """The time in seconds that a pod has to terminate. Defaults to 120, which is enough for a
    training step and a checkpoint of a large model."""
    resource_claims: ObjectList | None = None
    """Claims for dynamic resource allocation (DRA). The container uses the claims that are named in
    the `claims` of `resources`. Entries are merged by name."""
    init_containers: ObjectList | None = None
    """Containers that run before the stage, or alongside it with `restartPolicy: Always`. They get
    the restricted security settings of the stage's container. Entries are merged by name."""
    volumes: ObjectList | None = None
    """Volumes to add to the pod. Entries are merged by name."""
    volume_mounts: ObjectList | None = None
    """Volume mounts to add to the container. Entries are merged by mount path."""
    env: ObjectList | None = None
    """Environment variables to add to the container. Entries are merged by name."""
    env_from: ObjectList | None = None
    """ConfigMaps and Secrets whose keys become environment variables of the container. Variables of
    `env`, and those that the operator sets, take precedence over variables of the same name."""
    resources: JsonObject | None = None
    """Resource requests and limits of the container, merged with those that the operator sets. A
    null removes a resource."""
    security_context: JsonObject | None = None
    """Security settings, merged with those that the operator sets. Fields that exist only for
    containers apply to the container, all others to the pod. If `runAsUser`, `runAsGroup` or
    `fsGroup` is null, the platform chooses the ID. Other nulls change nothing."""


class PodTemplateEntry(ApiModel):
    """A template, and the stages whose pods it changes."""

    stages: Annotated[list[Stage], Field(min_length=1, max_length=16)] | None = None
    """The stages that the template applies to. If unset, it applies to all stages, and to the Job
    that removes the data of a deleted evolution."""
    template: PodTemplate
    """The fields that are added to, or replaced in, the pods of these stages."""


class Queue(ApiModel):
    """The Kueue queue of the stage Jobs."""

    name: LabelName
    """The name of the LocalQueue."""
    priority_class: LabelName | None = None
    """The name of the WorkloadPriorityClass. If unset, the Jobs name no priority class."""


class FailurePolicy(ApiModel):
    """How often a stage is retried."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """The maximum number of attempts per stage. Attempts that are lost to causes outside the stage
    do not count. A stage that fails because of invalid input is never retried."""
    max_disruptions: Annotated[int, Field(ge=0, le=1000), EXPERT] = 20
    """The maximum number of attempts per stage that may be lost to causes outside it: preemption, a
    lost node, or unavailable storage. They are counted separately from `maxAttempts`."""
    backoff_seconds: Annotated[int, Field(ge=0, le=86_400), EXPERT] = 10
    """The delay in seconds before the second attempt. It doubles with each further attempt, up to
    ten minutes."""


class Deadlines(ApiModel):
    """Time limits in seconds. A limit that is unset and has no default does not apply."""

    stage_active_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """The maximum duration of a stage Job in seconds, from its start. Suspended time does not
    count. If unset, there is no limit."""
    stage_pending_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 1800
    """The maximum time in seconds to wait for a pod to start, including scheduling and pulling its
    image. Waiting in a queue and running init containers do not count. Half an hour allows for a
    slow pull of a large image."""
    run_active_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = None
    """The maximum duration of the whole evolution in seconds. Suspended time does not count. If
    unset, there is no limit."""
