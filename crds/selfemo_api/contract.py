"""The contract between whoever starts a stage (operator, local runner) and the stage itself.

A stage is started as ``python -m selfemo_jobs.stages.<stage> --config FILE``, where the file is
the JSON of a :class:`StageConfig`. It writes its parts and then its manifest under ``output``,
puts a :class:`~selfemo_api.results.StageResult` into its termination message, and exits with an
:class:`ExitCode`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel
from selfemo_api.results import SourceScore
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_api.stages import Stage


class ExitCode(IntEnum):
    """Exit codes of stages and of the ``selfemo`` command."""

    OK = 0
    INTERNAL = 1
    """A defect of ours, or of a library. Retried a few times."""
    BAD_INPUT = 2
    """Something a person must mend. Never retried."""
    UNAVAILABLE = 75
    """The outside was away (S3, the network); sysexits' EX_TEMPFAIL. Counted as a disruption."""
    TERMINATED = 143
    """SIGTERM: the work is saved as far as it was. Counted as a disruption."""


#: Environment variables of a stage.
ENV_TERMINATION_LOG = "SELFEMO_TERMINATION_LOG"
"""Where the result goes; unset: /dev/termination-log, as Kubernetes has it."""
ENV_SHARD = "JOB_COMPLETION_INDEX"
"""The shard; Kubernetes sets it in an Indexed Job. Unset: 0."""
ENV_DATA = "SELFEMO_DATA"
"""Data volumes: `name=/folder:name=/folder`. `data://name/path` is looked up here first."""
ENV_DATA_ROOT = "SELFEMO_DATA_ROOT"
"""Folder below which other data volumes are mounted, each by its name. Unset: /data."""
ENV_WORK = "SELFEMO_WORK"
"""Scratch folder that outlives an attempt where it can (checkpoints, downloads)."""
ENV_RENDEZVOUS = "SELFEMO_RENDEZVOUS"
"""`host:port` where the nodes of a training meet: the first node's. Only with several nodes."""
ENV_PARENT = "SELFEMO_PARENT"
"""Process id of a local runner: the stage ends when that process does. Unset in a pod."""

ENV_METRICS_PORT = "SELFEMO_METRICS_PORT"
"""Port on which the stage shows its progress to Prometheus while it runs. Unset: none."""


class StageConfig(ApiModel):
    """All that a stage needs to know; everything it does follows from it."""

    stage: Stage
    run: Annotated[str, Field(min_length=3, max_length=256)]
    """`<namespace>/<name>-<uid8>`: the run's folder in the storage."""
    generation: Annotated[int, Field(ge=0, le=999)]
    seed: Annotated[int, Field(ge=0)]
    """The stage's own seed, see :func:`stage_seed`."""
    spec: EvolutionSpec
    """The spec pinned for this generation."""
    policy_uri: str
    """The model that plays, trains or is evaluated."""
    judge_uri: str
    """The frozen model that scores."""
    output: str
    """Folder of this stage's results: `<storage.uri>/<run>/generations/<NNN>/<stage>`."""
    parents: dict[str, str] = {}
    """Manifest URI by stage slug: what this stage reads."""
    replay: list[str] = []
    """Flywheel manifest URIs of earlier generations, newest first."""
    baseline: SourceScore | None = None
    """Generation 0 on the selecting source."""


class PurgeConfig(ApiModel):
    """What the removal of a deleted run's data is told.

    It is started as ``python -m selfemo_jobs.stages.purge --config FILE``.
    """

    run: Annotated[
        str,
        Field(pattern=r"^[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*-[0-9a-f]{8}$", max_length=256),
    ]
    """`<namespace>/<name>-<uid8>`: the folder that is removed."""
    storage: StorageSpec


#: The program that removes a deleted run's data.
PURGE_MODULE = "selfemo_jobs.stages.purge"
