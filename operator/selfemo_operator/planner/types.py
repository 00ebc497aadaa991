"""Types of the planner: what it observes, and what it decides. No I/O, and no Kubernetes types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

from selfemo_api.contract import ExitCode, StageConfig
from selfemo_api.results import SourceScore, StageResult
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_api.status import (
    Best,
    Condition,
    Current,
    EvolutionStatus,
    GenerationRecord,
    Phase,
    Reason,
    Recovery,
    Replacement,
    StageFailure,
    StageTotals,
)
from selfemo_api.text.control_characters import printable_lines


class JobState(StrEnum):
    """State of a stage Job."""

    QUEUED = "Queued"
    """A queue (Kueue) holds it. No deadline counts."""
    PENDING = "Pending"
    """It exists; no pod has started."""
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    """It was stopped because the evolution is suspended."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_final(self) -> bool:
        """Whether the Job has ended."""
        return self in (JobState.SUCCEEDED, JobState.FAILED)


#: Exit codes of a stage that something outside has ended, besides the platform's own report.
DISRUPTED_EXITS = (ExitCode.UNAVAILABLE, ExitCode.TERMINATED)


@dataclass(frozen=True)
class Failure:
    """Why a Job failed."""

    message: str
    exit_code: int | None = None
    """Exit code of the container; None if no container reported one (evicted, node lost)."""
    disrupted: bool = False
    """Whether the platform took the pod away (preemption, eviction, lost node)."""
    rejected: bool = False
    """Whether a kubelet rejected the pod before it started. This is a disruption, too."""
    deadline: bool = False
    """Whether the Job was stopped because it passed a deadline."""
    damaged: Stage | None = None
    """The stage of the same generation whose result is missing or damaged, or None."""
    stopped: bool = False
    """Whether the local runner itself ended the attempt, because a person stopped the run."""

    def __post_init__(self) -> None:
        """Replace control characters: a pod or a node may have written the message."""
        object.__setattr__(self, "message", printable_lines(self.message))


@dataclass(frozen=True)
class Removal:
    """A pod that the platform removed (preemption, a drained node)."""

    time: datetime
    """The time of the removal, in whole seconds as Kubernetes writes it."""
    pod: str
    """The uid of the pod."""


@dataclass(frozen=True)
class StageJob:
    """One stage Job as it is now."""

    name: str
    generation: int
    stage: Stage
    attempt: int
    state: JobState
    result: StageResult | None = None
    failure: Failure | None = None
    create_time: datetime | None = None
    start_time: datetime | None = None
    pending_since: datetime | None = None
    """Time since which one of its pods waits to start. None: all have started, or a queue holds the
    Job."""
    waiting: str = ""
    """Why its pods do not start (image pull, unschedulable); empty if nothing is wrong."""
    outdated: bool = False
    """Whether `podTemplate` or `queue` was edited after the Job was created."""
    queued: bool = False
    """Whether a queue manages the Job and decides when it runs."""
    has_running_pods: bool = False
    """Whether one of its pods runs while others wait."""
    idle_since: datetime | None = None
    """Time at which the last of its running pods ended. None: none has run."""
    removals: tuple[Removal, ...] = ()
    """Its pods that the platform removed, and that the Job then creates again."""
    deadline_outdated: bool = False
    """Whether the Job has another deadline than the spec."""
    missing_pods_since: datetime | None = None
    """Time since which the API server has none of its pods although it should have some. None: it
    has pods, or it is not yet due to have any."""

    @property
    def key(self) -> tuple[int, Stage, int]:
        """Generation, stage and attempt."""
        return self.generation, self.stage, self.attempt


@dataclass(frozen=True)
class Observed:
    """The Jobs of one evolution as they are now."""

    jobs: tuple[StageJob, ...] = ()
    refusal: str = ""
    """Why the next Job may not be created as the spec requests it: only an edit helps."""
    trouble: str = ""
    """Why the next Job could not be created for now (a quota, a missing permission)."""
    deleted_job: str = ""
    """The name of the Job of the current attempt if it is known to have existed and to be gone. A
    Job that was never seen, because the response to its creation was lost, is not named here."""
    live_pod: str = ""
    """A pod of an earlier attempt that has not ended: the next Job of its stage has to wait."""
    live_pod_since: datetime | None = None
    """Time since which the next Job waits for such a pod."""


@dataclass(frozen=True)
class End:
    """Why an evolution ends."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class AttemptOutcome:
    """How an attempt of a stage ended: with a result or with a failure.

    With neither, the attempt was replaced: the operator deleted its Job, or the local runner
    stopped it, and nothing has failed.
    """

    stage: Stage
    result: StageResult | None = None
    gpu_seconds: float = 0.0
    """Wall time of the result times the GPUs of the stage's pods."""
    failure: StageFailure | None = None


@dataclass(frozen=True)
class Progress:
    """An evolution after the outcome of its current Job was recorded."""

    status: EvolutionStatus
    spec: EvolutionSpec
    """The spec pinned for the current generation."""
    job: StageJob | None = None
    """The Job of the current stage and attempt, if it exists."""
    end: End | None = None
    """Why the evolution ends with this outcome, or None."""
    outcome: AttemptOutcome | None = None
    """The outcome that was recorded, or None."""
    deletion: DeleteJob | None = None
    """The deletion of the Job of an attempt that was given up in this pass, or None."""


class StatusChanges(TypedDict, total=False):
    """Fields of :class:`~selfemo_api.status.EvolutionStatus` for ``model_copy(update=…)``.

    pydantic does not check an update. With this type mypy checks its names and values.
    """

    observed_generation: int
    conditions: list[Condition]
    phase: Phase
    uri: str | None
    generation: int
    stage: Stage | None
    attempt: int
    failures: int
    disruptions: int
    replaced_pods: int
    last_replacement_time: datetime | None
    recent_replacements: list[Replacement] | None
    recoveries: int
    recovery: Recovery | None
    last_failure: str | None
    retry_after: datetime | None
    start_time: datetime | None
    last_progress_time: datetime | None
    completion_time: datetime | None
    suspended_time: datetime | None
    suspended_seconds: float
    without_improvement: int
    current: Current | None
    best: Best | None
    baseline: SourceScore | None
    baseline_uri: str | None
    label_prior: dict[str, float] | None
    reward: float | None
    f1: float | None
    history: list[GenerationRecord]
    stages: list[StageTotals]


@dataclass(frozen=True)
class CreateJob:
    """Start a stage."""

    name: str
    attempt: int
    config: StageConfig


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job that is not needed."""

    name: str
    reason: str


@dataclass(frozen=True)
class SuspendJob:
    """Stop a Job's pods and keep the Job."""

    name: str


@dataclass(frozen=True)
class ResumeJob:
    """Let a suspended Job run again."""

    name: str


@dataclass(frozen=True)
class SetDeadline:
    """Give a Job the deadline of the spec."""

    name: str
    seconds: int | None
    """The maximum duration in seconds, from the Job's start. If None, there is no limit."""


@dataclass(frozen=True)
class DeleteEvolution:
    """Delete the evolution itself: its time to live has passed."""


Action = CreateJob | DeleteJob | SuspendJob | ResumeJob | SetDeadline | DeleteEvolution


@dataclass(frozen=True)
class Decision:
    """The decision of one pass. The status is written first, and the action only after that."""

    status: EvolutionStatus
    action: Action | None = None
    requeue_at: datetime | None = None
    """When to plan again even if nothing happens. None: only when something happens."""
