"""``spec.storage``: where results go."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from selfemo_api.api_model import ApiModel, DnsSubdomain, Rule, ShortText
from selfemo_api.spec.fields import EXPERT, NO_BLANK, NO_BLANK_MESSAGE, StorageUri


class WhenDeleted(StrEnum):
    """What happens to a run's data when its EmotionEvolution is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Keep(StrEnum):
    """Which trained models of a run are kept in the storage."""

    ALL = "All"
    LAST = "Last"
    BEST = "Best"


class SecretReference(ApiModel):
    """A reference to a Secret in the namespace of the evolution. The operator never reads it."""

    name: DnsSubdomain
    """The name of the Secret."""


class StorageSpec(ApiModel):
    """Where results go: a folder, or a bucket of any S3 server."""

    uri: StorageUri
    """The URI below which each run has its folder: `file:///folder` or `s3://bucket/prefix`."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s\p{Z}]+$", max_length=1024)] | None = (
        None
    )
    """The URL of an S3 server. If unset, AWS is used."""
    region: ShortText | None = None
    """The region of the bucket. Defaults to the region in the pod's environment. If the environment
    specifies no region and `endpoint` is set, it defaults to us-east-1."""
    path_style: bool = False
    """Whether buckets are addressed by path instead of host name. Many self-hosted S3 servers
    require it; AWS does not."""
    checksums: Annotated[str, Field(pattern=r"^(WhenSupported|WhenRequired)$")] = "WhenSupported"
    """When requests include a checksum. `WhenSupported` is boto3's default. `WhenRequired` is for
    S3 servers that reject requests with checksums."""
    max_attempts: Annotated[int, Field(ge=1, le=50), EXPERT] = 8
    """The maximum number of attempts per request. Eight attempts with backoff bridge about a minute
    without S3."""
    credentials_secret_ref: SecretReference | None = None
    """The Secret with the keys `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and optionally
    `AWS_SESSION_TOKEN`. If unset, the pod's own identity is used."""
    when_deleted: WhenDeleted = WhenDeleted.RETAIN
    """What happens to the run's data when its EmotionEvolution is deleted. `Retain` keeps the data,
    because models are expensive. With `Delete`, a Job removes the run's folder on Kubernetes; on
    one machine, nothing removes it."""

    keep: Keep = Keep.ALL
    """Which trained models are kept in the storage when a generation ends. `Best` removes all
    models except the best one, the baseline's, and the one that the next generation starts from.
    `Last` also keeps the model of the last generation. Manifests and tables are always kept.
    Defaults to `All`, because a removed model cannot be restored."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(NO_BLANK, NO_BLANK_MESSAGE),
        Rule(
            "!has(self.endpoint) || !self.endpoint.matches('^https?://[^/?#]*@')",
            "`endpoint` must not contain credentials: put them in the Secret of "
            "`credentialsSecretRef`, or in the AWS_ environment variables",
        ),
    )
