"""Checks an object against Kubernetes' own types: those of the official client, which are strict.

It finds a misspelt or misplaced field, a missing one and a wrong type, without a cluster and
without schemas from elsewhere. Rules across fields stay the API server's.
"""

from __future__ import annotations

from typing import Any

from kubernetes.client import models
from pydantic import ValidationError


def problems(document: dict[str, Any]) -> list[str]:
    """Return what is wrong with an object, each with its path."""
    kind, version = document["kind"], document["apiVersion"].rpartition("/")[2]
    model = getattr(models, version[0].upper() + version[1:] + kind)
    try:
        model.model_validate(document)
    except ValidationError as error:
        return [f"{kind}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return []
