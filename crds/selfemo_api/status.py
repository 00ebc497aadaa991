"""``status`` of an EmotionEvolution: what has happened so far, bounded in size."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from selfemo_api.api_model import ApiModel, JsonObject
from selfemo_api.results import ExpressionScore, Metrics, SourceScore, StageResult
from selfemo_api.stages import Stage
from selfemo_api.text.control_characters import PlainText

#: The maximum number of generations in the history, and that replay reaches back.
HISTORY_LIMIT = 10
#: The maximum length of `lastFailure` in characters. The error line of a stage fits.
FAILURE_MAX = 1024


class ConditionType(StrEnum):
    """Types of conditions, as in kstatus. `Succeeded` is the summary of the others."""

    SUCCEEDED = "Succeeded"
    """`True` if the evolution ended as its spec specifies, `False` if it ended otherwise."""
    RECONCILING = "Reconciling"
    """`True` until the evolution has ended or is suspended."""
    STALLED = "Stalled"
    """`True` if the evolution cannot continue without an action: fix the cause, and edit the
    spec."""
    SUSPENDED = "Suspended"
    """`True` while `spec.suspend` is true and holds the evolution."""
    PROGRESSING = "Progressing"
    """`True` while a pod of the stage runs or is about to run; the message shows the position."""
    RECOVERING = "Recovering"
    """Present only while results of the generation in progress are regenerated: one of them was
    damaged, or what they depend on was edited."""


class ConditionStatus(StrEnum):
    """The status of a condition, as in Kubernetes."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Phase(StrEnum):
    """A human-readable summary of the conditions in one word. No program reads it back."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    COLLAPSED = "Collapsed"
    FAILED = "Failed"


class Reason(StrEnum):
    """All reasons of conditions."""

    RUNNING = "Running"
    """The evolution is in progress."""
    QUEUED = "Queued"
    """The Job of the stage waits in a queue, such as a Kueue queue, and has no pod."""
    WAITING = "Waiting"
    """No pod of the stage runs, or its Job cannot be created; the message explains why."""
    RETRYING = "Retrying"
    """An attempt failed, and the next one starts after a delay; the message contains the error."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true."""
    NOT_SUSPENDED = "NotSuspended"
    """`spec.suspend` is false."""
    MAX_GENERATIONS_REACHED = "MaxGenerationsReached"
    """The evolution has run `stopping.maxGenerations` generations."""
    GOAL_REACHED = "GoalReached"
    """The weighted F1 has reached `stopping.goal`."""
    PLATEAUED = "Plateaued"
    """`stopping.patience` generations in a row were not better than the best one."""
    COLLAPSED = "Collapsed"
    """A generation crossed a threshold of `overrides.stopping.collapse`. The best model is kept."""
    REGRESSED = "Regressed"
    """A generation was not better than the best one, and `promotion.onRegression` is `Stop`."""
    STAGE_FAILED = "StageFailed"
    """All attempts of a stage failed."""
    BAD_INPUT = "BadInput"
    """The spec, the data or the model must be fixed. It is never retried automatically."""
    PENDING_TOO_LONG = "PendingTooLong"
    """No pod of a stage started within `deadlines.stagePendingSeconds`."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """A stage or the whole evolution took longer than `deadlines` allows."""
    RESULT_DAMAGED = "ResultDamaged"
    """A stored result is missing or damaged, and the stages that produced it run again."""
    SPEC_EDITED = "SpecEdited"
    """Stages of the generation in progress run again, because what they read was edited."""
    HEALTHY = "Healthy"
    """No action is required."""
    FINISHED = "Finished"
    """The evolution has ended."""


class Condition(ApiModel):
    """A Kubernetes condition."""

    type: ConditionType
    """The type of the condition. `Succeeded` is the summary of the others."""
    status: ConditionStatus
    """Whether the condition holds: `True`, `False` or `Unknown`."""
    observed_generation: Annotated[int, Field(ge=0)]
    """The `metadata.generation` that the condition was set for."""
    last_transition_time: datetime
    """The time at which the status of the condition last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=64)]
    """The machine-readable reason for the status, in one word."""
    message: Annotated[PlainText, Field(max_length=2048)]
    """The human-readable reason for the status, in one sentence."""


class Outcome(StrEnum):
    """The outcome of a generation."""

    BASELINE = "Baseline"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    CONTINUED = "Continued"
    COLLAPSED = "Collapsed"


class Best(ApiModel):
    """The generation with the highest F1 so far."""

    generation: int
    """The number of the generation."""
    f1: float
    """Its weighted F1 on the selection dataset, from 0 to 1."""
    model_uri: Annotated[str, Field(max_length=2048)]
    """The URI of its model."""


class GenerationRecord(ApiModel):
    """One finished generation."""

    generation: int
    """The number of the generation."""
    outcome: Outcome
    """The outcome of the generation."""
    f1: float | None = None
    """The weighted F1 on the selection dataset, from 0 to 1. Unset if the generation collapsed
    before its evaluation."""
    scores: Annotated[list[SourceScore], Field(max_length=16)]
    """The scores on all evaluation sources. The selection dataset is the first."""
    expression: ExpressionScore | None = None
    """How well the responder expresses emotions. Unset if the responder did not play, or the
    generation was not evaluated."""
    reward: float | None = None
    """The mean reward of the candidates. Unset if they were not scored."""
    consistency: float | None = None
    """The mean consistency of the groups, from 0 to 1. Unset if they were not scored."""
    kept: int | None = None
    """The number of candidates that the flywheel kept, including replay."""
    model_uri: Annotated[str, Field(max_length=2048)]
    """The URI of the model that was evaluated."""
    stage_seconds: Annotated[dict[str, float], Field(max_length=8)] = {}
    """The wall time in seconds of each stage's successful attempt."""
    gpu_seconds: float = 0.0
    """The GPU-seconds of the stages' successful attempts."""
    message: Annotated[PlainText, Field(max_length=1024)] = ""
    """The human-readable reason for the outcome, in one sentence."""


class StageFailure(StrEnum):
    """Why an attempt of a stage failed."""

    FAILED = "Failed"
    """The attempt failed because of an error in the stage."""
    DISRUPTED = "Disrupted"
    """The attempt was lost to a cause outside the stage."""
    BAD_INPUT = "BadInput"
    """The input must be fixed."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The attempt ran for too long."""
    PENDING_TOO_LONG = "PendingTooLong"
    """The attempt waited for too long."""
    RESULT_DAMAGED = "ResultDamaged"
    """The result of an earlier stage, which the attempt reads, was missing or damaged."""


class StageTotals(ApiModel):
    """Totals of a stage over the whole run, and the values of its last result.

    Unlike the results in `current`, they outlast the generation.
    """

    stage: Stage
    """The stage."""
    generation: int = 0
    """The generation of the last result."""
    seconds: float = 0.0
    """The wall time of the last result in seconds."""
    metrics: Metrics = {}
    """The metrics of the last result."""
    runs: int = 0
    """The number of successful attempts."""
    failures: Annotated[dict[str, int], Field(max_length=8)] = {}
    """The number of failed attempts, by reason."""
    replaced: int = 0
    """The number of attempts that ended although nothing failed: the pod template was edited before
    the Job started, the spec was edited before the baseline was measured, the evolution was
    suspended, or the user stopped `selfemo run`."""
    total_seconds: float = 0.0
    """The wall time of all successful attempts, in seconds."""
    gpu_seconds: float = 0.0
    """The GPU-seconds of all successful attempts: the wall time times the number of GPUs."""
    tokens: float = 0.0
    """The number of tokens that were generated (SelfPlay) or trained on (Train)."""


class Recovery(ApiModel):
    """Stages of the generation in progress that run again: a result was damaged, or what it depends
    on was edited.

    Each of these stages checks its stored result: an intact result from the same settings is
    reused, any other result is regenerated.
    """

    damaged: Stage
    """The earliest stage whose result was missing, damaged, or produced with other settings. It is
    the first stage to run again."""
    until: Stage
    """The last stage to run again: the one that was in progress."""


class Current(ApiModel):
    """The generation in progress, or the last one."""

    spec: JsonObject
    """The spec of this generation, with the values of its recipe and without settings that have
    their base value. It is pinned when the generation begins: edits take effect with the next
    one."""
    policy_uri: Annotated[str, Field(max_length=2048)]
    """The URI of the policy: the model that plays and is trained."""
    judge_uri: Annotated[str, Field(max_length=2048)]
    """The URI of the judge: the frozen model that scores candidates."""
    changes: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=64)] = []
    """The settings that differ from the recipe, as `path=value`."""
    previous_best: Best | None = None
    """The best generation when this one began. It counts again if the outcome of this
    generation is decided again after a recovery."""
    results: Annotated[list[StageResult], Field(max_length=6)] = []
    """The results of the generation's finished stages."""


class Replacement(ApiModel):
    """Pods that the platform removed in the same second."""

    time: datetime
    """The time of the removal."""
    pods: Annotated[list[Annotated[str, Field(max_length=8)]], Field(min_length=1, max_length=4096)]
    """The first eight characters of the uid of each pod."""


class EvolutionStatus(ApiModel):
    """What has happened so far."""

    observed_generation: int = 0
    """The `metadata.generation` that the status reflects."""
    conditions: Annotated[list[Condition], Field(max_length=8)] = []
    """The conditions of the evolution. `Succeeded` is the summary of the others."""
    phase: Phase = Phase.PENDING
    """A human-readable summary of the conditions in one word. No program reads it back."""
    uri: Annotated[str, Field(max_length=2048)] | None = None
    """The URI of the run's folder in the storage. `best/manifest.json` in it names the best model,
    and `report.html` is the report."""
    generation: int = 0
    """The number of the generation in progress, or of the last one."""
    stage: Stage | None = None
    """The stage in progress, or the last one."""
    attempt: int = 1
    """The number of the stage's Job. It is never reused within a stage."""
    failures: int = 0
    """The number of attempts of the stage that failed because of an error in the stage."""
    disruptions: int = 0
    """The number of attempts of the stage that were lost to causes outside it."""
    replaced_pods: int = 0
    """The number of the stage's pods that the platform removed and that their Job recreated, for
    example because of preemption or a drained node. If the stage has N pods, every N removed pods
    count as one disruption."""
    last_replacement_time: datetime | None = None
    """The time up to which `replacedPods` counts all removals."""
    # no default: the API server would add it for an older operator, which does not know the field
    recent_replacements: Annotated[list[Replacement], Field(max_length=64)] | None = None
    """The removals after `lastReplacementTime` that `replacedPods` counts, oldest first. Others
    from that time may become known later: a pod that was removed first may take longer to
    terminate."""
    recoveries: int = 0
    """The number of recoveries of the generation in progress: how often it went back to an earlier
    stage whose result was missing or damaged."""
    recovery: Recovery | None = None
    """The recovery in progress. Unset if there is none. It is caused by an edit if `recoveries` is
    0."""
    last_failure: Annotated[PlainText, Field(max_length=FAILURE_MAX)] | None = None
    """The error of the last failed attempt. It is kept while the stage is retried."""
    retry_after: datetime | None = None
    """The time before which the stage is not retried."""
    start_time: datetime | None = None
    """The time at which the evolution started."""
    last_progress_time: datetime | None = None
    """The time at which the stage last changed, or an attempt of it began to run, for example after
    a queue or a suspension."""
    completion_time: datetime | None = None
    """The time at which the evolution ended, successfully or not."""
    suspended_time: datetime | None = None
    """The time at which the current suspension began."""
    suspended_seconds: float = 0.0
    """The total duration of all earlier suspensions in seconds. It does not count toward
    deadlines."""
    without_improvement: int = 0
    """The number of generations since the best one."""
    current: Current | None = None
    """The generation in progress, or the last one."""
    best: Best | None = None
    """The generation with the highest F1 so far."""
    baseline: SourceScore | None = None
    """The baseline's score on the selection dataset. Collapse is measured against it."""
    baseline_uri: Annotated[str, Field(max_length=2048)] | None = None
    """The URI of the baseline's model: the model of the warm start, or the model of the spec."""
    label_prior: dict[str, float] | None = None
    """The frequency of each emotion in the labeled sources, from 0 to 1. Unset if there are
    none."""
    reward: float | None = None
    """The mean reward of the last generation that was scored."""
    f1: float | None = None
    """The weighted F1 on the selection dataset, from 0 to 1, of the last generation that was
    evaluated."""
    history: Annotated[list[GenerationRecord], Field(max_length=10)] = []
    """The last finished generations, oldest first, at most ten."""
    stages: Annotated[list[StageTotals], Field(max_length=8)] = []
    """Totals by stage. A stage has an entry once one of its attempts has ended."""

    def condition(self, kind: ConditionType) -> Condition | None:
        """Return the condition of a type, or None if there is none.

        Parameters
        ----------
        kind
            The type of the condition.
        """
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def finished(self) -> bool:
        """Whether the evolution has ended, successfully or not."""
        return self.completion_time is not None

    def result(self, stage: Stage) -> StageResult | None:
        """Return the result of a stage of the generation in progress, or None if there is none.

        Parameters
        ----------
        stage
            The stage.
        """
        results = self.current.results if self.current else []
        return next((r for r in results if r.stage == stage), None)
