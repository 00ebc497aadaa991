"""``spec.storage``: where results go."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsLabel, ShortText
from selfemo_api.spec.fields import StorageUri


class WhenDeleted(StrEnum):
    """What becomes of a run's data when its EmotionEvolution is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class SecretReference(ApiModel):
    """A Secret in the evolution's namespace; the operator never reads it."""

    name: DnsLabel


class StorageSpec(ApiModel):
    """Where results go: a folder or any S3."""

    uri: StorageUri
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=1024)] | None = None
    """For an S3 that is not AWS."""
    region: ShortText | None = None
    path_style: bool = False
    """Address buckets by path, as many self-hosted S3 servers need."""
    checksums: Annotated[str, Field(pattern=r"^(WhenSupported|WhenRequired)$")] = "WhenSupported"
    """`WhenRequired` for S3 servers that refuse boto3's default checksums."""
    max_attempts: Annotated[int, Field(ge=1, le=50)] = 8
    """Tries for each request; eight with back-off rides out about a minute without S3."""
    credentials_secret_ref: SecretReference | None = None
    """Keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. Unset: the pod's own identity."""
    when_deleted: WhenDeleted = WhenDeleted.RETAIN
    """Retained, since models are dear. `Delete`: on Kubernetes a Job removes the run's folder once
    the EmotionEvolution is gone; on one machine nothing does."""
