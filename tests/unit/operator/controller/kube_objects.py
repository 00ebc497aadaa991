"""Evolutions, Jobs and pods for tests of the pure functions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.unit.operator.planner.simulated_world import spec_of

from selfemo_api.evolution import EmotionEvolution, Metadata
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage, job_name
from selfemo_operator.controller.objects import names
from selfemo_operator.controller.objects.settings import JobSettings
from selfemo_operator.planner.lifecycle import begin
from selfemo_operator.planner.stage_config import stage_config
from selfemo_operator.planner.types import CreateJob

Json = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SETTINGS = JobSettings(image="selfemo/jobs:test")


def evolution_of(stage: Stage = Stage.EVALUATE, **spec: Any) -> EmotionEvolution:
    """Return an evolution in generation 0, in a given stage."""
    metadata = Metadata(
        name="demo", namespace="team", uid="0123456789ab", generation=3, resource_version="77"
    )
    evolution = EmotionEvolution(metadata=metadata, spec=spec_of(**spec))
    status = begin(evolution, NOW).model_copy(update={"stage": stage})
    return evolution.model_copy(update={"status": status})


def action_of(evolution: EmotionEvolution, attempt: int = 1) -> CreateJob:
    """Return the action that creates the Job of the current stage, with the pinned spec."""
    status = evolution.status
    assert status.stage is not None
    assert status.current is not None
    pinned = EvolutionSpec.model_validate(status.current.spec)
    name = job_name("demo", status.generation, status.stage, attempt)
    return CreateJob(name, attempt, stage_config(evolution, status, pinned, status.stage))


def job_of(
    status: Json | None = None,
    *,
    suspend: bool = False,
    queue: str = "",
    stage: Stage = Stage.EVALUATE,
    **more: Any,
) -> Json:
    labels = {**names.stage_labels(evolution_of(), stage, 1)}
    if queue:
        labels[names.LABEL_QUEUE] = queue
    metadata = {
        "name": job_name("demo", 0, stage, 1),
        "namespace": "team",
        "labels": labels,
        "creationTimestamp": "2026-01-01T10:00:00Z",
    }
    spec = {"suspend": True} if suspend else {}
    return {"metadata": {**metadata, **more}, "spec": spec, "status": status or {}}


def condition(kind: str, status: str = "True", **more: Any) -> Json:
    return {"type": kind, "status": status, **more}


def pod_of(phase: str = "Pending", state: Json | None = None, **more: Any) -> Json:
    status: Json = {"phase": phase, **more}
    if state is not None:
        status["containerStatuses"] = [{"name": names.CONTAINER, "state": state}]
    created = "2026-01-01T11:00:00Z"
    return {"metadata": {"name": "pod-0", "creationTimestamp": created}, "status": status}


def terminated(code: int, message: str = "", **more: Any) -> Json:
    return {"terminated": {"exitCode": code, "message": message, **more}}
