"""Does the CRD that the API server serves fit this operator? Pure but for one read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from selfemo_api.api_model import KIND, VERSION
from selfemo_api.schema.crd import build_crd
from selfemo_operator.controller.kube.client import ApiError, KubeClient
from selfemo_operator.controller.objects.names import schema_path

Json = dict[str, Any]


class CrdMismatch(Exception):
    """The CRD is not there, or lacks fields that this operator writes or reads."""


def check_crd(kube: KubeClient) -> None:
    """Compare the served schema with the one that this operator was built with.

    The schema comes from the server's discovery, which everybody may read: no right on CRDs is
    needed. Fields that are served and unknown here are of a newer CRD, and do no harm.

    Raises
    ------
    CrdMismatch
        With what to do.
    ApiError
        If the API server cannot be asked.
    """
    try:
        document = kube.get(schema_path())
    except ApiError as error:
        if error.status != 404:
            raise
        raise CrdMismatch(
            "the API server does not serve selfemo.dev/v1alpha1: apply the chart's CRD"
        ) from error
    lacking = missing_fields(_ours(), served_schema(document))
    if lacking:
        names = ", ".join(f"`{name}`" for name in lacking[:5])
        raise CrdMismatch(
            f"the CRD served is older than this operator: it lacks {names}"
            f"{' and more' if len(lacking) > 5 else ''}; apply this version's CRD "
            "(`helm upgrade`, or `kubectl apply --server-side`)"
        )


def served_schema(document: Json) -> Json:
    """Return the kind's schema out of an OpenAPI v3 document. Raises CrdMismatch."""
    for schema in document.get("components", {}).get("schemas", {}).values():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if any(k.get("kind") == KIND and k.get("version") == VERSION for k in kinds):
            found: Json = schema
            return found
    raise CrdMismatch(f"the API server does not serve {KIND}: apply the chart's CRD")


def missing_fields(ours: Json, served: Json) -> list[str]:
    """Return the fields (dotted) of one schema that another lacks."""
    return list(_missing(ours, served, ""))


def _missing(ours: Json, served: Json, path: str) -> Iterator[str]:
    for name, schema in ours.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        other = served.get("properties", {}).get(name)
        if other is None:
            yield where
        else:
            yield from _missing(schema, other, where)
    if isinstance(ours.get("items"), dict) and isinstance(served.get("items"), dict):
        yield from _missing(ours["items"], served["items"], path + "[]")


def _ours() -> Json:
    properties: Json = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return {"properties": {name: properties[name] for name in ("spec", "status")}}
