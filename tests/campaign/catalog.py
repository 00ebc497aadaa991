"""The kinds of evolutions of the campaign, and how each ends when nothing goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from selfemo_operator.controller.objects import names
from tests.integration.operator.api import document

Json = dict[str, Any]
DELETE = {"uri": "s3://bucket/runs", "whenDeleted": "Delete"}
_HOST = {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}
_ROOT = {"securityContext": {"privileged": True, "runAsUser": 0}}


@dataclass(frozen=True)
class Kind:
    """A kind of evolution.

    Attributes
    ----------
    spec
        The part of the spec that differs from the others.
    f1s
        The F1 of each generation.
    weight
        How often it is drawn.
    bad_input
        The generation and stage that fail because of bad input.
    stages
        The number of stages that run.
    refused
        Whether the operator must report the spec and run nothing.
    expires
        Whether the operator deletes it after its end.
    """

    spec: Json = field(default_factory=dict)
    f1s: tuple[float, ...] = (0.3, 0.35, 0.4)
    weight: int = 1
    bad_input: tuple[int, str] | None = None
    stages: int = 9
    refused: bool = False
    expires: bool = False


KINDS: dict[str, Kind] = {
    "plain": Kind(weight=6),
    "worse": Kind({"stopping": {"maxGenerations": 2}}, f1s=(0.3, 0.4, 0.35), weight=2, stages=15),
    "purged": Kind({"storage": DELETE}, weight=4),
    "sharded": Kind({"selfPlay": {"shards": 2}}),
    "bad": Kind(bad_input=(1, "Score"), weight=1, stages=5),
    "queued": Kind({"queue": {"name": "queue"}}, weight=1),
    "expiring": Kind({"ttlSecondsAfterFinished": 1}, weight=1, expires=True),
    "hostpath": Kind(
        {"podTemplate": [{"template": _HOST}], "storage": DELETE}, refused=True, stages=0
    ),
    "privileged": Kind(
        {"podTemplate": [{"template": _ROOT}], "storage": DELETE}, refused=True, stages=0
    ),
    "unknown": Kind({"recipe": "small-v99"}, refused=True, stages=0),
    "field": Kind(weight=0),  # its fields are changed one by one
}


def manifest(name: str, kind: str, namespace: str) -> Json:
    """Return the manifest of an evolution."""
    own = dict(KINDS[kind].spec)
    templates = [{"template": {"schedulerName": "none"}}, *own.pop("podTemplate", [])]
    spec: Json = {
        "stopping": {"maxGenerations": 1},
        "failurePolicy": {"maxAttempts": 100},
        "overrides": {"failurePolicy": {"backoffSeconds": 0, "maxDisruptions": 500}},
        "podTemplate": templates,
        **own,
    }
    body = document(name, **spec)
    body["metadata"]["namespace"] = namespace
    return body


def end_state(status: Json) -> Json:
    """Return the end of an evolution without times, object ids, and how often it was retried."""
    return {
        "phase": status.get("phase"),
        "best": (status.get("best") or {}).get("generation"),
        "history": [
            (g["generation"], g["outcome"], g.get("f1")) for g in status.get("history", [])
        ],
        "conditions": sorted(
            (c["type"], c["status"], c["reason"])
            for c in status.get("conditions", [])
            if (c["type"], c["status"]) != ("Recovering", "False")
        ),
        "finished": status.get("completionTime") is not None,
    }


def evolution_path(namespace: str, name: str) -> str:
    """Return the path of an evolution."""
    return names.evolution_path((namespace, name))
