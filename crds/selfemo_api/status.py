"""``status`` of an EmotionEvolution: what has happened, bounded in size."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, JsonObject
from selfemo_api.results import Metrics, SourceScore, StageResult
from selfemo_api.stages import Stage

#: Longest `lastFailure`: a stage's own error line fits.
FAILURE_MAX = 1024


class ConditionType(StrEnum):
    """Conditions, after kstatus; `Succeeded` is the summary."""

    SUCCEEDED = "Succeeded"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SUSPENDED = "Suspended"
    PROGRESSING = "Progressing"


class ConditionStatus(StrEnum):
    """As Kubernetes spells it."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Phase(StrEnum):
    """One word for people, derived from the conditions and never read back."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    COLLAPSED = "Collapsed"
    FAILED = "Failed"


class Reason(StrEnum):
    """Every reason that a condition can give."""

    PENDING = "Pending"
    RUNNING = "Running"
    QUEUED = "Queued"
    WAITING = "Waiting"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    NOT_SUSPENDED = "NotSuspended"
    MAX_GENERATIONS_REACHED = "MaxGenerationsReached"
    GOAL_REACHED = "GoalReached"
    PLATEAUED = "Plateaued"
    COLLAPSED = "Collapsed"
    REGRESSED = "Regressed"
    STAGE_FAILED = "StageFailed"
    BAD_INPUT = "BadInput"
    PENDING_TOO_LONG = "PendingTooLong"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    HEALTHY = "Healthy"
    FINISHED = "Finished"


class Condition(ApiModel):
    """A Kubernetes condition."""

    type: ConditionType
    status: ConditionStatus
    observed_generation: Annotated[int, Field(ge=0)]
    last_transition_time: datetime
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    message: Annotated[str, Field(max_length=2048)]


class Outcome(StrEnum):
    """What became of a generation."""

    BASELINE = "Baseline"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    CONTINUED = "Continued"
    COLLAPSED = "Collapsed"


class Best(ApiModel):
    """The best generation so far."""

    generation: int
    f1: float
    model_uri: Annotated[str, Field(max_length=2048)]


class GenerationRecord(ApiModel):
    """One finished generation."""

    generation: int
    outcome: Outcome
    f1: float | None = None
    """Weighted F1 on the selecting source; unset where it collapsed before its evaluation."""
    scores: Annotated[list[SourceScore], Field(max_length=16)]
    reward: float | None = None
    consistency: float | None = None
    kept: int | None = None
    """Candidates that the flywheel kept."""
    model_uri: Annotated[str, Field(max_length=2048)]
    stage_seconds: Annotated[dict[str, float], Field(max_length=8)] = {}
    gpu_seconds: float = 0.0
    message: Annotated[str, Field(max_length=1024)] = ""


class StageFailure(StrEnum):
    """Why an attempt of a stage failed."""

    FAILED = "Failed"
    """By its own fault."""
    DISRUPTED = "Disrupted"
    """It was lost to the outside."""
    BAD_INPUT = "BadInput"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    PENDING_TOO_LONG = "PendingTooLong"


class StageTotals(ApiModel):
    """What a stage has come to over the whole run, and its figures when it last ended well.

    Unlike the figures in `current` these outlast their generation.
    """

    stage: Stage
    generation: int = 0
    """Of the last result."""
    seconds: float = 0.0
    """Wall time of the last result."""
    metrics: Metrics = {}
    """Figures of the last result."""
    runs: int = 0
    """Attempts that ended well."""
    failures: Annotated[dict[str, int], Field(max_length=8)] = {}
    """Attempts that failed, by reason."""
    total_seconds: float = 0.0
    """Wall time of the attempts that ended well."""
    gpu_seconds: float = 0.0
    """The same, times their GPUs."""
    tokens: float = 0.0
    """Tokens generated (SelfPlay) or trained on (Train)."""


class Current(ApiModel):
    """The generation under way, with the spec it was started with."""

    spec: JsonObject
    """The spec pinned when the generation began: edits take effect at the next."""
    policy_uri: Annotated[str, Field(max_length=2048)]
    judge_uri: Annotated[str, Field(max_length=2048)]
    results: Annotated[list[StageResult], Field(max_length=5)] = []


class EvolutionStatus(ApiModel):
    """What has happened so far."""

    observed_generation: int = 0
    conditions: Annotated[list[Condition], Field(max_length=8)] = []
    phase: Phase = Phase.PENDING
    generation: int = 0
    stage: Stage | None = None
    attempt: int = 1
    """Number of the stage's Job now; never reused within a stage."""
    failures: int = 0
    """Attempts of this stage that failed by its own fault."""
    disruptions: int = 0
    """Attempts of this stage lost to the outside."""
    last_failure: Annotated[str, Field(max_length=FAILURE_MAX)] | None = None
    """Why the last attempt that failed did; kept while the stage is tried again."""
    retry_after: datetime | None = None
    start_time: datetime | None = None
    last_progress_time: datetime | None = None
    """When the stage last changed, or an attempt of it began."""
    completion_time: datetime | None = None
    suspended_time: datetime | None = None
    """When the present suspension began."""
    suspended_seconds: float = 0.0
    """Total of earlier suspensions; no deadline counts them."""
    without_improvement: int = 0
    current: Current | None = None
    best: Best | None = None
    baseline: SourceScore | None = None
    """Generation 0 on the selecting source: what collapse is measured against."""
    reward: float | None = None
    """Mean reward of the last scored generation."""
    f1: float | None = None
    """Weighted F1 of the last evaluated generation, on the selecting source."""
    history: Annotated[list[GenerationRecord], Field(max_length=10)] = []
    stages: Annotated[list[StageTotals], Field(max_length=5)] = []
    """Totals by stage; a stage is there once an attempt of it has ended."""

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of a type, if it is there."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def finished(self) -> bool:
        """Whether the evolution has come to its end, good or bad."""
        return self.completion_time is not None

    def result(self, stage: Stage) -> StageResult | None:
        """Return the recorded result of a stage of the generation under way."""
        results = self.current.results if self.current else []
        return next((r for r in results if r.stage == stage), None)
