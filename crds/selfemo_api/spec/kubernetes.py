"""How stage pods are placed, queued, retried and bounded in time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, JsonObject, ShortText

Text = Annotated[str, Field(max_length=1024)]
StringMap = Annotated[dict[str, Text], Field(max_length=64)]
ObjectList = Annotated[list[JsonObject], Field(max_length=64)]


class PodTemplate(ApiModel):
    """What a stage pod adds to, or changes in, the pod that selfemo builds."""

    image: ShortText | None = None
    image_pull_policy: Annotated[str, Field(pattern=r"^(Always|IfNotPresent|Never)$")] | None = None
    image_pull_secrets: ObjectList | None = None
    labels: StringMap | None = None
    annotations: StringMap | None = None
    node_selector: StringMap | None = None
    tolerations: ObjectList | None = None
    affinity: JsonObject | None = None
    priority_class_name: ShortText | None = None
    scheduler_name: ShortText | None = None
    runtime_class_name: ShortText | None = None
    service_account_name: ShortText | None = None
    volumes: ObjectList | None = None
    volume_mounts: ObjectList | None = None
    env: ObjectList | None = None
    resources: JsonObject | None = None
    security_context: JsonObject | None = None


class PodTemplates(ApiModel):
    """One template for all stages, and one more for each stage, merged in that order."""

    shared: PodTemplate | None = None
    self_play: PodTemplate | None = None
    score: PodTemplate | None = None
    flywheel: PodTemplate | None = None
    train: PodTemplate | None = None
    evaluate: PodTemplate | None = None


class Queue(ApiModel):
    """Kueue's labels on each stage Job."""

    name: ShortText
    priority_class: ShortText | None = None


class FailurePolicy(ApiModel):
    """How often a stage is tried again."""

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Tries of one stage that fail by its own fault (a bad exit); bad input is never retried."""
    max_disruptions: Annotated[int, Field(ge=0, le=1000)] = 20
    """Tries lost to the outside (preemption, a lost node, storage away): a separate count."""
    backoff_seconds: Annotated[int, Field(ge=0, le=86_400)] = 10
    """Wait before the second try; doubles with each, up to ten minutes."""


class Deadlines(ApiModel):
    """Time bounds. Unset: none."""

    stage_active_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Longest run of one stage Job, from its start; time suspended does not count."""
    stage_pending_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 1800
    """Longest wait for a pod to start (image pull, scheduling); half an hour covers a slow pull of
    a large image. Waiting in a queue does not count."""
    run_active_seconds: Annotated[int, Field(ge=1, le=315_360_000)] | None = None
    """Longest run of the whole evolution; time suspended does not count."""
