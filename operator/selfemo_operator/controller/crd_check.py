"""Compares the CRD that the API server serves with the one that this operator was built with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selfemo_api.api_model import KIND, VERSION
from selfemo_api.schema.crd import build_crd
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects.names import schema_path

Json = dict[str, Any]


class CrdMismatch(Exception):
    """The CRD is not installed, or it lacks fields that this operator writes or reads."""


def check_crd(kube: KubeClient) -> None:
    """Check that the served schema has all fields of this operator's schema.

    The schema comes from the discovery API, which every account may read: no right on CRDs is
    needed. Fields that only the served schema has belong to a newer CRD, and do no harm.

    Raises
    ------
    CrdMismatch
        If fields are missing. The message names the fix.
    ApiError
        If the API server cannot be reached.
    """
    try:
        document = kube.get(schema_path())
    except ApiError as error:
        if error.status != 404:
            raise
        raise CrdMismatch(
            "the API server does not serve selfemo.dev/v1alpha1: apply the chart's CRD"
        ) from error
    missing = missing_fields(_expected_schema(), served_schema(document))
    if missing:
        fields = ", ".join(f"`{name}`" for name in missing[:5])
        raise CrdMismatch(
            f"the installed CRD is older than this operator: it lacks {fields}"
            f"{' and more' if len(missing) > 5 else ''}; apply this version's CRD "
            "(`helm upgrade`, or `kubectl apply --server-side`)"
        )


def served_schema(document: Json) -> Json:
    """Return the schema of EmotionEvolution in an OpenAPI v3 document. Raises CrdMismatch."""
    for schema in document.get("components", {}).get("schemas", {}).values():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if any(k.get("kind") == KIND and k.get("version") == VERSION for k in kinds):
            served: Json = schema
            return served
    raise CrdMismatch(f"the API server does not serve {KIND}: apply the chart's CRD")


def missing_fields(expected: Json, served: Json) -> list[str]:
    """Return the dotted paths of the fields that only the first of two schemas has.

    >>> missing_fields({"properties": {"a": {}, "b": {}}}, {"properties": {"a": {}}})
    ['b']
    """
    return list(_missing(expected, served, ""))


def _missing(expected: Json, served: Json, path: str) -> Iterator[str]:
    for name, schema in expected.get("properties", {}).items():
        field = f"{path}.{name}".lstrip(".")
        other = served.get("properties", {}).get(name)
        if other is None:
            yield field
        else:
            yield from _missing(schema, other, field)
    if isinstance(expected.get("items"), dict) and isinstance(served.get("items"), dict):
        yield from _missing(expected["items"], served["items"], path + "[]")


def _expected_schema() -> Json:
    properties: Json = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return {"properties": {name: properties[name] for name in ("spec", "status")}}
