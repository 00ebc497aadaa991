"""What the planner sees and what it may ask for. No I/O here, and no Kubernetes types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from selfemo_api.contract import StageConfig
from selfemo_api.results import StageResult
from selfemo_api.stages import Stage
from selfemo_api.status import EvolutionStatus


class JobState(StrEnum):
    """How a stage Job stands."""

    QUEUED = "Queued"
    """Held by a queue (Kueue): no clock runs."""
    PENDING = "Pending"
    """Created; no pod has started."""
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    """Stopped because the evolution is suspended."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in (JobState.SUCCEEDED, JobState.FAILED)


@dataclass(frozen=True)
class Failure:
    """Why a Job failed."""

    message: str
    exit_code: int | None = None
    """None where no container reported one (evicted, node lost)."""
    disrupted: bool = False
    """Whether the platform took the pod away (preemption, eviction, lost node)."""
    deadline: bool = False
    """Whether it was ended because its time was over."""


@dataclass(frozen=True)
class StageJob:
    """One Job as observed."""

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
    """Since when a pod of it has waited to start; None: all have, or a queue holds it."""
    waiting: str = ""
    """Why its pods do not start (image pull, unschedulable); empty where all is well."""
    outdated: bool = False
    """Whether its pods would be placed otherwise by now: `podTemplate` or `queue` was edited."""
    queued: bool = False
    """Whether a queue has it in hand, and so decides when it runs."""

    @property
    def key(self) -> tuple[int, Stage, int]:
        """Generation, stage and attempt."""
        return self.generation, self.stage, self.attempt


@dataclass(frozen=True)
class Observed:
    """The Jobs of one evolution."""

    jobs: tuple[StageJob, ...] = ()
    refusal: str = ""
    """Why the next Job cannot be as the spec asks: an end that only an edit mends."""
    trouble: str = ""
    """Why the next Job could not be created for now (a quota, a right that is missing)."""

    def find(self, generation: int, stage: Stage, attempt: int) -> StageJob | None:
        """Return a Job, if it is there."""
        return next((j for j in self.jobs if j.key == (generation, stage, attempt)), None)


@dataclass(frozen=True)
class CreateJob:
    """Start a stage."""

    name: str
    attempt: int
    config: StageConfig


@dataclass(frozen=True)
class DeleteJob:
    """Remove a Job that is no longer wanted."""

    name: str
    reason: str


@dataclass(frozen=True)
class SuspendJob:
    """Stop a Job's pods, keeping the Job."""

    name: str


@dataclass(frozen=True)
class ResumeJob:
    """Let a suspended Job run again."""

    name: str


@dataclass(frozen=True)
class DeleteEvolution:
    """Remove the evolution itself: its time to live has passed."""


Action = CreateJob | DeleteJob | SuspendJob | ResumeJob | DeleteEvolution


@dataclass(frozen=True)
class Decision:
    """What to do now. The status is written first; the action only if that write succeeded."""

    status: EvolutionStatus
    action: Action | None = None
    requeue_at: datetime | None = None
    """When to plan again even if nothing happens; None: only when something does."""
