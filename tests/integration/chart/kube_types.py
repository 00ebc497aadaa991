"""Checks an object against the strict Kubernetes types of the official client.

The check finds misspelled, misplaced and missing fields, and wrong types. It needs no cluster and
no schemas. Rules across fields are left to the API server.
"""

from __future__ import annotations

from typing import Any

from kubernetes.client import models
from pydantic import ValidationError


def problems(document: dict[str, Any]) -> list[str]:
    """Return the problems of an object, each with the path of its field."""
    kind, version = document["kind"], document["apiVersion"].rpartition("/")[2]
    model = getattr(models, version[0].upper() + version[1:] + kind)
    try:
        model.model_validate(document)
    except ValidationError as error:
        return [f"{kind}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return []
