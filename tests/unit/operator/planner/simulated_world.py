"""A simulated world for the planner: an API server, Jobs, manifests, and things that go wrong.

Everything the planner promises is checked here at each step, so that any test which drives this
world checks all of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any

from selfemo_api import dataset_labels
from selfemo_api.api_model import ApiModel
from selfemo_api.comparison import comparison_error, with_label_prior
from selfemo_api.contract import StageConfig
from selfemo_api.evolution import EmotionEvolution, Metadata
from selfemo_api.recipes import changed_settings
from selfemo_api.results import SourceScore, StageResult, decode_message, encode_message
from selfemo_api.spec import EvolutionSpec, OnRegression
from selfemo_api.stages import STAGE_ORDER, Stage, job_name, stages_of
from selfemo_api.status import (
    HISTORY_LIMIT,
    ConditionStatus,
    ConditionType,
    EvolutionStatus,
    Outcome,
    Phase,
    Reason,
    StageTotals,
)
from selfemo_operator.planner.conditions import GOOD_ENDS
from selfemo_operator.planner.lifecycle import begin
from selfemo_operator.planner.pinning import pinned_json, pinned_spec
from selfemo_operator.planner.plan import plan
from selfemo_operator.planner.types import (
    CreateJob,
    Decision,
    DeleteEvolution,
    DeleteJob,
    Failure,
    JobState,
    Observed,
    ResumeJob,
    StageJob,
    SuspendJob,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
#: Longest lag of a watch that the planner is asked to bear.
MAX_LAG = timedelta(seconds=30)
SHA = "0" * 64
ACTIVE = (JobState.QUEUED, JobState.PENDING, JobState.RUNNING)
FILE = {"uri": "file:///demo.jsonl", "format": "JSONL"}
SOURCES = (
    {"name": "train", "use": "SelfPlay", **FILE},
    {"name": "labeled", "use": "Labeled", **FILE},
    {"name": "demo", "use": "Evaluation", **FILE},
)
#: A setting that breaks a rule of the resolved spec, and its value without the recipe.
BROKEN, WHOLE = {"training": {"batchSize": 68}}, {"training": {"batchSize": 64}}
#: The share of each label in the labeled source.
LABEL_PRIOR = {label: (2 if label == "neutral" else 1) / 8 for label in dataset_labels.MELD}


def spec_of(**changes: Any) -> EvolutionSpec:
    """Return a small valid resolved spec; keyword arguments are camelCase parts, merged deeply."""
    base = {
        "recipe": "paper-v1",
        "model": {"uri": "file:///model"},
        "dataset": {"labels": list(dataset_labels.MELD), "sources": list(SOURCES)},
        "storage": {"uri": "s3://bucket/runs"},
    }
    return EvolutionSpec.model_validate(merged(base, changes))


def is_broken(spec: EvolutionSpec) -> bool:
    """Return whether a spec has the setting that breaks a rule."""
    return spec.training.batch_size == BROKEN["training"]["batchSize"]


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the changes; None takes a key out."""
    out = dict(base)
    for key, value in changes.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out


def settings_of(spec: EvolutionSpec, stage: Stage) -> str:
    """Return some of the settings that the result of a stage follows from, as text."""
    model, dataset = spec.model.prompts, spec.dataset
    read: dict[Stage, list[Any]] = {
        Stage.CHECK: [dataset.sources, dataset.label_map],
        Stage.WARM_START: [model, spec.warm_start, dataset.labeled, dataset.label_prior],
        Stage.SELF_PLAY: [model, spec.self_play.temperature, dataset.self_play],
        Stage.SCORE: [model, spec.self_play.temperature, spec.reward],
        Stage.FLYWHEEL: [spec.flywheel, dataset.label_prior],
        Stage.TRAIN: [model, spec.training],
        Stage.EVALUATE: [model, spec.evaluation.multi_label, dataset.evaluation],
    }
    return str(read.get(stage))


def score_of(f1: float, *, source: str = "demo", n_labels: int = 7, **changes: Any) -> SourceScore:
    """Return the figures of one source; predictions spread evenly unless told otherwise."""
    fields = {
        "source": source,
        "utterances": 2610,
        "weighted_f1": f1,
        "weighted_f1_low": max(0.0, f1 - 0.02),
        "weighted_f1_high": min(1.0, f1 + 0.02),
        "strict_weighted_f1": f1,
        "macro_f1": f1 * 0.8,
        "accuracy": f1,
        "unparsable": 0.013,
        "label_entropy": 0.9,
        "f1_by_label": [f1] * n_labels,
        "predicted_shares": [1 / n_labels] * n_labels,
    }
    return SourceScore(**{**fields, **changes})


def result_of(
    generation: int,
    stage: Stage,
    f1: float = 0.4,
    *,
    folder: str = "s3://bucket/runs/x",
    **more: Any,
) -> StageResult:
    """Return a healthy result of a stage."""
    metrics = {
        Stage.SELF_PLAY: {"diversity": 0.5},
        Stage.SCORE: {"zeroVarianceShare": 0.2, "rewardMean": 0.4, "consistencyMean": 0.6},
    }
    place = f"{folder}/generations/{generation:03d}/{stage.slug}"
    fields = {
        "stage": stage,
        "generation": generation,
        "manifest": f"{place}/manifest.json",
        "manifest_sha256": SHA,
        "rows": 100,
        "metrics": metrics.get(stage, {}),
        "scores": [score_of(f1)] if stage is Stage.EVALUATE else [],
        "model_uri": f"{place}/model" if stage in (Stage.WARM_START, Stage.TRAIN) else None,
        "seconds": 12.5,
    }
    return StageResult(**{**fields, **more})


Backup = tuple[EvolutionStatus, dict[int, tuple[float, float]]]


class Fault(Enum):
    """What goes wrong in one pass of the operator."""

    NONE = auto()
    WRITE_FAILS = auto()
    """The status write is refused or lost: the action must not be taken."""
    DIES_BETWEEN = auto()
    """The status is written, then the operator dies."""


@dataclass
class World:
    """One evolution, its Jobs, its storage, and a clock."""

    spec: EvolutionSpec
    f1s: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7)
    """Weighted F1 by generation."""
    collapses: frozenset[tuple[int, Stage]] = frozenset()
    """Where a stage's figures are past the bounds."""
    label_prior: dict[str, float] | None = None
    """The shares that the check counts in the labeled sources."""
    n_labels: int = 7
    size_limit: int = 40 * 1024
    """Bytes of the largest status."""
    now: datetime = START
    generation: int = 1
    """`metadata.generation`."""
    status: EvolutionStatus = field(default_factory=EvolutionStatus)
    jobs: dict[str, StageJob] = field(default_factory=dict)
    manifests: dict[tuple[int, Stage], StageResult] = field(default_factory=dict)
    damaged: set[tuple[int, Stage]] = field(default_factory=set)
    """The stages whose stored result cannot be read. Whatever reads one fails and names it."""
    exact: bool = True
    """Whether a result that is made again is equal to the one before, byte by byte."""
    made: list[tuple[int, Stage]] = field(default_factory=list)
    """Each result that was made, in order. A result that is used again is not made."""
    configs: dict[str, StageConfig] = field(default_factory=dict)
    """What each Job was started with."""
    gone: set[str] = field(default_factory=set)
    """The names of Jobs that are known to have been deleted, by the operator or by hand."""
    restored: bool = False
    """Whether a backup was put back: Jobs of a lost past may then be there."""
    started: list[tuple[int, Stage]] = field(default_factory=list)
    """Each Job creation, in order."""
    evaluated: dict[int, tuple[float, float]] = field(default_factory=dict)
    """F1 and minDelta by generation, as recorded in the status."""
    deleted: bool = False
    _read: dict[str, dict[str, str]] = field(default_factory=dict)
    """What each result was made from, by its hash."""
    made_with: dict[str, str] = field(default_factory=dict)
    """The settings that each result was made with, by its hash."""
    past: list[tuple[datetime, EmotionEvolution]] = field(default_factory=list)
    """What a lagging watch may still show."""

    @property
    def evolution(self) -> EmotionEvolution:
        """The object as the API server holds it."""
        return EmotionEvolution(
            metadata=Metadata(name="demo", uid="0123456789ab", generation=self.generation),
            spec=self.spec,
            status=self.status,
        )

    @property
    def observed(self) -> Observed:
        """All Jobs, as the API server lists them, and whether the current one is gone."""
        status = self.status
        name = ""
        if status.stage is not None:
            name = job_name("demo", status.generation, status.stage, status.attempt)
        is_gone = name in self.gone and name not in self.jobs
        return Observed(tuple(self.jobs.values()), deleted_job=name if is_gone else "")

    @property
    def active(self) -> list[StageJob]:
        """Jobs that may have pods."""
        return [job for job in self.jobs.values() if job.state in ACTIVE]

    @property
    def current(self) -> StageJob | None:
        """The Job of the stage under way."""
        key = (self.status.generation, self.status.stage, self.status.attempt)
        return next((j for j in self.jobs.values() if j.key == key), None)

    @property
    def summary(self) -> str:
        """The reason of the `Succeeded` condition."""
        condition = self.status.condition(ConditionType.SUCCEEDED)
        return condition.reason if condition else ""

    def recovered(self, generation: int) -> bool:
        """Return whether results of a generation have been made more than once."""
        return any(self.made.count(key) > 1 for key in self.made if key[0] == generation)

    # What people do -----------------------------------------------------------------------------

    def edit(self, **changes: Any) -> None:
        """Edit the spec; camelCase parts."""
        spec = EvolutionSpec.model_validate(merged(self.spec.to_json(), changes))
        if spec != self.spec:
            self._remember()
            self.spec, self.generation = spec, self.generation + 1

    def back_up(self) -> Backup:
        """Return what a backup of the status holds (and what this model knows about it)."""
        return self.status, dict(self.evaluated)

    def restore(self, backup: Backup) -> None:
        """Put back the status of a backup: the manifests and the Jobs stay as they are."""
        self.status, self.evaluated = backup[0], dict(backup[1])
        self.restored = True
        self.past.clear()

    # What time and the cluster do -----------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Move the clock, forwards or backwards."""
        self.now += timedelta(seconds=seconds)
        if seconds < 0:
            self.past.clear()

    def set_job(self, name: str, state: JobState, **changes: Any) -> None:
        """Let a Job come to a state."""
        job = self.jobs[name]
        if state is JobState.RUNNING and job.state is not JobState.RUNNING:
            changes.setdefault("start_time", self.now)
            changes.setdefault("pending_since", None)
            changes.setdefault("missing_pods_since", None)
        self.jobs[name] = replace(job, state=state, **changes)

    def succeed(self, name: str, *, lost: bool = False) -> None:
        """Let a Job end well: it writes the manifest, or answers from the one that is there.

        If it cannot read what an earlier stage of its generation made, it fails and names it.
        """
        unreadable = self._unreadable(name)
        if unreadable is not None:
            return self.fail(name, 65, damaged=unreadable)
        result = self.work(name)
        self.set_job(name, JobState.SUCCEEDED, result=None if lost else result)

    def work(self, name: str) -> StageResult:
        """Write a Job's manifest, and return what the Job says (over the wire and back)."""
        job = self.jobs[name]
        key = (job.generation, job.stage)
        reused = self._has_result(name)
        if not reused:
            self.manifests[key] = self._make(job)
            self.damaged.discard(key)
            self.made.append(key)
        made = self.manifests[key]
        said = made.model_copy(update={"reused": True, "seconds": 0.0}) if reused else made
        heard = decode_message(encode_message(said))
        assert isinstance(heard, StageResult)
        return heard

    def damage(self, generation: int, stage: Stage) -> None:
        """Let somebody delete a part of a stage's stored result."""
        assert (generation, stage) in self.manifests
        self.damaged.add((generation, stage))

    def _has_result(self, name: str) -> bool:
        """Return whether a Job answers from the stored result of its stage."""
        job, config = self.jobs[name], self.configs[name]
        stored = self.manifests.get((job.generation, job.stage))
        if stored is None or not config.repair:
            return stored is not None
        sha, is_whole = stored.manifest_sha256, (job.generation, job.stage) not in self.damaged
        is_equal = self.made_with[sha] == settings_of(config.spec, job.stage)
        return is_whole and is_equal and self._parents_of(name) == self._read[sha]

    def _unreadable(self, name: str) -> Stage | None:
        """Return the stage whose damaged result a Job has to read, or None."""
        job = self.jobs[name]
        if job.stage is not Stage.PUBLISH and self._has_result(name):
            return None
        read = [stage for stage in Stage if stage.slug in self.configs[name].parents]
        return next((s for s in read if (job.generation, s) in self.damaged), None)

    def _parents_of(self, name: str) -> dict[str, str]:
        """Return the hashes of the results that a Job reads, by the slug of their stage."""
        job = self.jobs[name]
        read = [stage for stage in Stage if stage.slug in self.configs[name].parents]
        results = {s.slug: self.manifests.get((job.generation, s)) for s in read}
        return {slug: r.manifest_sha256 for slug, r in results.items() if r is not None}

    def fail(
        self,
        name: str,
        code: int | None = 1,
        *,
        disrupted: bool = False,
        rejected: bool = False,
        damaged: Stage | None = None,
    ) -> None:
        """Let a Job fail."""
        failure = Failure(
            "it broke", exit_code=code, disrupted=disrupted, rejected=rejected, damaged=damaged
        )
        self.set_job(name, JobState.FAILED, failure=failure)

    def stop(self, name: str) -> None:
        """Let the local runner stop a Job, as Ctrl-C does."""
        failure = Failure("it was stopped", exit_code=143, stopped=True)
        self.set_job(name, JobState.FAILED, failure=failure)

    def vanish(self, name: str, *, noticed: bool = True) -> None:
        """Let a Job be gone: deleted by hand, or by its time to live.

        An operator that did not run has never seen it.
        """
        del self.jobs[name]
        if noticed:
            self.gone.add(name)

    def _make(self, job: StageJob) -> StageResult:
        f1 = self.f1s[min(job.generation, len(self.f1s) - 1)]
        parents = self._parents_of(job.name)
        times = 0 if self.exact else self.made.count((job.generation, job.stage))
        read = settings_of(self.configs[job.name].spec, job.stage)
        text = f"{job.generation} {job.stage} {sorted(parents.items())} {read} {times}"
        sha = hashlib.sha256(text.encode()).hexdigest()
        self._read[sha], self.made_with[sha] = parents, read
        result = result_of(job.generation, job.stage, f1, manifest_sha256=sha)
        if job.stage is Stage.CHECK:
            shares = list((self.label_prior or {}).values())
            return result.model_copy(update={"label_shares": shares})
        if result.scores:
            names = [source.name for source in self.spec.dataset.evaluation]
            scores = [score_of(f1, source=name, n_labels=self.n_labels) for name in names]
            result = result.model_copy(update={"scores": scores})
        if (job.generation, job.stage) not in self.collapses:
            return result
        bad: dict[Stage, dict[str, Any]] = {
            Stage.SELF_PLAY: {"metrics": {"diversity": 0.001}},
            Stage.SCORE: {"metrics": {"zeroVarianceShare": 0.999, "rewardMean": 0.9}},
            Stage.EVALUATE: {"scores": [score_of(f1, label_entropy=0.01)]},
        }
        return result.model_copy(update=bad.get(job.stage, {}))

    # What the operator does -----------------------------------------------------------------------

    def reconcile(
        self, fault: Fault = Fault.NONE, seen: EmotionEvolution | None = None
    ) -> Decision:
        """Run one pass of the operator.

        Parameters
        ----------
        seen
            What a lagging watch shows instead of the object as it is.
        """
        fresh = seen is None
        seen = seen or self.evolution
        decision = decide(seen, self.observed, self.now)
        if seen != self.evolution:
            return decision  # the reconciler reads the version again before it acts
        if decision.status != seen.status:
            if not fresh or fault is Fault.WRITE_FAILS:
                return decision  # refused by the resourceVersion, or lost
            self._write(seen, decision)
        if fault is Fault.DIES_BETWEEN or decision.action is None:
            return decision
        self._act(decision, fresh, suspended=seen.spec.suspend)
        return decision

    def _write(self, seen: EmotionEvolution, decision: Decision) -> None:
        check_transition(self, seen, decision.status)
        self._remember()
        # What comes back from the API server has been JSON on the way.
        text = json.dumps(decision.status.to_json())
        assert EvolutionStatus.model_validate_json(text) == decision.status
        assert len(text) <= self.size_limit
        self.status = EvolutionStatus.model_validate_json(text)

    def _remember(self) -> None:
        self.past = [p for p in self.past if self.now - p[0] <= MAX_LAG]
        self.past.append((self.now, self.evolution))

    def lagging(self) -> list[EmotionEvolution]:
        """Return what a lagging watch may show now."""
        return [old for at, old in self.past if self.now - at <= MAX_LAG]

    def _act(self, decision: Decision, fresh: bool, *, suspended: bool) -> None:
        match decision.action:
            case CreateJob() as action:
                self._create(action, fresh)
            case DeleteJob(name=name):
                job = self.jobs[name]
                wanted = job.key == (self.status.generation, self.status.stage, self.status.attempt)
                assert not wanted or self.status.finished, f"{name} is wanted"
                assert not job.state.is_final, "a final Job is evidence; its time to live ends it"
                self.vanish(name)
            case SuspendJob(name=name):
                assert self.jobs[name].state in ACTIVE
                assert suspended
                assert not self.jobs[name].queued, "its queue would start it again"
                self.set_job(name, JobState.SUSPENDED, start_time=None, pending_since=None)
            case ResumeJob(name=name):
                assert not suspended
                self.set_job(name, JobState.PENDING, start_time=self.now, pending_since=self.now)
            case DeleteEvolution():
                assert self.status.finished
                assert self.spec.ttl_seconds_after_finished is not None
                self.deleted = True

    def _create(self, action: CreateJob, fresh: bool) -> None:
        config = action.config
        key = (config.generation, config.stage)
        if action.name in self.jobs:
            return  # 409: it is there already
        assert action.name not in self.gone or self.restored or not fresh, "a name is used again"
        assert not self.active, f"{action.name} beside {[j.name for j in self.active]}"
        if fresh:
            assert not self.spec.suspend
            assert not self.status.finished
            assert self.status.retry_after is None, "it was to wait"
            assert key == (self.status.generation, self.status.stage)
            is_again = self.status.recovery is not None
            assert is_again or self.status.result(config.stage) is None, f"{key} is recorded"
            assert config.repair == is_repaired(self.status, config.stage)
        if fresh and config.stage is Stage.PUBLISH:
            self._check_outcomes(config)
        if fresh or config.stage is not Stage.PUBLISH:  # an old status may lack later results
            parents = _parents(self, *key, warm_start=config.spec.has_warm_start)
            assert config.parents.keys() == parents
        assert self.status.current is None or config.spec == pinned_spec(self.status)
        assert len(f"{action.name}-1023") <= 63
        self.started.append(key)
        self.configs[action.name] = config
        self.jobs[action.name] = StageJob(
            name=action.name,
            generation=config.generation,
            stage=config.stage,
            attempt=action.attempt,
            state=JobState.PENDING,
            create_time=self.now,
            start_time=self.now,
            pending_since=self.now,
            queued=self.spec.queue is not None,
        )

    def _check_outcomes(self, config: StageConfig) -> None:
        """Check the configuration of Publish: the outcome is recorded before it starts."""
        outcomes = config.outcomes
        assert outcomes is not None
        assert outcomes.best == self.status.best
        last = self.status.history[-1]
        assert last.generation == config.generation
        assert [o.generation for o in outcomes.generations] == [
            record.generation for record in self.status.history
        ]
        assert outcomes.generations[-1].outcome is last.outcome
        assert config.policy_uri == last.model_uri

    # Going on to the end --------------------------------------------------------------------------

    def step(self) -> tuple[Decision, bool]:
        """Run one pass, let each Job come one state further, and say whether anything moved."""
        decision = self.reconcile()
        moved = decision.action is not None
        for job in list(self.jobs.values()):
            if job.state in (JobState.PENDING, JobState.QUEUED):
                self.set_job(job.name, JobState.RUNNING)
                moved = True
            elif job.state is JobState.RUNNING:
                self.succeed(job.name)
                moved = True
        return decision, moved

    def settle(self, limit: int = 600) -> None:
        """Let a fair world go on until it is at rest."""
        for _ in range(limit):
            decision, moved = self.step()
            if self.deleted:
                return
            if moved:
                continue
            again = self.reconcile()
            if again.action is not None or again.status != decision.status:
                continue
            lives_on = self.status.finished and self.spec.ttl_seconds_after_finished is not None
            if again.requeue_at is None or lives_on:
                return
            self.now = max(self.now, again.requeue_at)
        raise AssertionError(f"not at rest after {limit} passes: {self.status.to_json()}")


def _parents(world: World, generation: int, stage: Stage, *, warm_start: bool) -> set[str]:
    if generation and stage is Stage.PUBLISH:
        assert world.status.current is not None
        done = {result.stage for result in world.status.current.results}
        collapsed = world.status.history[-1].outcome is Outcome.COLLAPSED
        assert collapsed or done >= {Stage.TRAIN, Stage.EVALUATE}
        return {s.slug for s in done & {Stage.TRAIN, Stage.EVALUATE}}
    if generation == 0:
        trained = {"warmstart"} if warm_start else set()
        return {
            Stage.EVALUATE: trained,
            Stage.PUBLISH: {*trained, "evaluate"},
        }.get(stage, set())
    order = stages_of(generation)
    return {order[order.index(stage) - 1].slug} if stage is not order[0] else set()


def decide(evolution: EmotionEvolution, observed: Observed, now: datetime) -> Decision:
    """Plan, and check that planning is pure."""
    before = _text(evolution)
    decision = plan(evolution, observed, now)
    assert _text(evolution) == before, "the input was changed"
    assert plan(evolution, observed, now) == decision, "not deterministic"
    backwards = replace(observed, jobs=tuple(reversed(observed.jobs)))
    assert plan(evolution, backwards, now).status == decision.status, "the order of Jobs counts"
    assert decision.requeue_at is None or decision.requeue_at.tzinfo is not None
    return decision


def _text(model: ApiModel) -> str:
    return json.dumps(model.to_json(), sort_keys=True)


# What every status write must keep ------------------------------------------------------------


def check_transition(world: World, seen: EmotionEvolution, new: EvolutionStatus) -> None:
    """Check a status write against the one before."""
    if seen.status.current is None and new.current is not None:
        # Beginning and taking in a Job that is there already may be one step.
        seen = seen.model_copy(update={"status": begin(seen, world.now)})
    old = seen.status
    if old.current is None:
        # what has failed stays so while it is suspended
        rests = old.finished and seen.spec.suspend
        assert is_broken(seen.spec) or rests, "nothing is pinned"
        assert new.finished
    else:
        _check_progress(world, old, new)
        _check_best(world, seen, new)
    check_conditions(seen, new, world.now)
    if seen.spec.suspend and not old.finished:
        assert not new.finished or is_broken(seen.spec), "a deadline fired while suspended"
    assert new.suspended_seconds >= old.suspended_seconds
    assert new.observed_generation == seen.metadata.generation
    if old.start_time is not None:
        assert new.start_time == old.start_time
    assert not (new.finished and new.retry_after)
    if new.failures + new.disruptions > old.failures + old.disruptions and not new.finished:
        assert new.attempt > old.attempt or new.stage is not old.stage, "an attempt is used again"


def _check_progress(world: World, old: EvolutionStatus, new: EvolutionStatus) -> None:
    assert old.stage is not None
    assert new.stage is not None
    assert new.current is not None
    assert old.current is not None
    assert not is_broken(pinned_spec(new)), "a spec is pinned that breaks a rule"
    if new.generation != old.generation:
        assert new.generation == old.generation + 1, "a generation was skipped"
        closed = {entry.generation: entry.outcome for entry in new.history}
        assert old.generation in closed, "a generation was not closed"
        stages = stages_of(old.generation, warm_start=pinned_spec(old).has_warm_start)
        if closed[old.generation] is Outcome.COLLAPSED:
            stages = (Stage.PUBLISH,)
        assert all((old.generation, s) in world.manifests for s in stages)
        # Beginning and taking in a Job that is there already (after a restore) may be one step.
        fresh = new.current.model_copy(update={"results": []})
        first = {"generation": new.generation, "stage": Stage.SELF_PLAY, "attempt": 1}
        old = old.model_copy(update={**first, "current": fresh})
    _check_stage(world, old, new)


def _check_stage(world: World, old: EvolutionStatus, new: EvolutionStatus) -> None:
    """Check the stage and the results of a generation against those before."""
    assert old.stage is not None
    assert new.stage is not None
    assert new.current is not None
    assert old.current is not None
    order = _order(old, new)
    done = [r.stage for r in new.current.results]
    assert done == list(order[: len(done)]), "stages out of order"
    before = [r for r in old.current.results if r.stage in order]
    if old.recovery is not None and old.stage in order:  # later results may follow from a new one
        before = before[: order.index(old.stage)]
    assert new.current.results[: len(before)] == before
    for result in new.current.results:
        made = world.manifests[(result.generation, result.stage)]
        assert result.manifest == made.manifest
        assert result.generation == new.generation
    if begins_again(old, new):
        _check_edit(world, old, new)
    elif went_back(old, new):
        _check_recovery(world, old, new)
    elif new.stage == old.stage:
        assert 0 <= new.attempt - old.attempt <= 1 or world.restored
        _check_replacement(world, old, new)
    else:
        assert pinned_spec(old).has_warm_start == pinned_spec(new).has_warm_start
        assert order.index(new.stage) == order.index(old.stage) + 1
        totals = next((t for t in old.stages if t.stage is new.stage), StageTotals(stage=new.stage))
        earlier = sum(totals.failures.values()) + totals.replaced
        if new.recovery is not None:
            _check_new_attempt(world, new)
        elif old.recovery is None and not world.recovered(new.generation):
            assert new.attempt == 1 + (earlier if new.generation == 0 else 0)
        assert new.result(old.stage) is not None, "a stage was skipped"
    if old.recovery is not None and new.recovery is None and not world.restored:
        for result in new.current.results:
            key = (result.generation, result.stage)
            same = result.manifest_sha256 == world.manifests[key].manifest_sha256
            assert same or key in world.damaged, "an old result is in the status"
    if not new.finished and new.recovery is None:
        assert new.result(new.stage) is None, "a stage is under way whose result is known"
        _check_settings(world, new)


def _check_settings(world: World, new: EvolutionStatus) -> None:
    """Check that the results of a generation follow from one spec, until it is decided."""
    is_closed = bool(new.history) and new.history[-1].generation == new.generation
    if world.restored or is_closed or new.current is None:
        return
    for result in new.current.results:
        made_with = world.made_with[result.manifest_sha256]
        assert made_with == settings_of(pinned_spec(new), result.stage), "results of two specs"


def begins_again(old: EvolutionStatus, new: EvolutionStatus) -> bool:
    """Return whether a status write begins another attempt with the spec as it is now."""
    if old.finished:
        return not new.finished
    return bool(comparison_error(pinned_spec(old), pinned_spec(new)))


def _check_edit(world: World, old: EvolutionStatus, new: EvolutionStatus) -> None:
    """Check an attempt after an edit: it may go back, and loses no result that counts."""
    assert new.stage is not None
    assert new.current is not None
    assert old.current is not None
    order = _order(old, new)
    kept = [r for r in old.current.results if r.stage in order]
    assert new.current.results[: len(kept)] == kept
    # after a restored backup, a Job of the lost time may have ended: its result is recorded at once
    assert len(new.current.results) == len(kept) or world.restored
    assert old.finished or (new.generation == 0 and new.best is None)
    assert new.recoveries == 0
    assert (new.failures, new.disruptions, new.retry_after) == (0, 0, None)
    if not world.restored:
        _check_new_attempt(world, new)
    if new.recovery is not None:
        first, until = (order.index(s) for s in (new.recovery.damaged, new.recovery.until))
        assert first <= order.index(new.stage) <= until


def _check_replacement(world: World, old: EvolutionStatus, new: EvolutionStatus) -> None:
    """Check that another attempt of a stage is counted: failed, disrupted, or replaced."""
    if new.attempt == old.attempt or old.finished:
        return
    counted = new.failures + new.disruptions - old.failures - old.disruptions
    replaced = sum(t.replaced for t in new.stages) - sum(t.replaced for t in old.stages)
    assert counted + replaced == 1
    if replaced:
        assert new.last_failure == old.last_failure
        key = (old.generation, old.stage, old.attempt)
        (job,) = [job for job in world.jobs.values() if job.key == key]
        stopped = job.failure is not None and job.failure.stopped
        assert stopped or (job.queued if world.spec.suspend else job.outdated)


def went_back(old: EvolutionStatus, new: EvolutionStatus) -> bool:
    """Return whether a status write goes back to a stage whose result is damaged."""
    return new.recoveries > old.recoveries or (
        new.recovery is not None
        and (old.recovery is None or old.recovery.damaged is not new.recovery.damaged)
        and not old.finished
    )


def is_repaired(status: EvolutionStatus, stage: Stage) -> bool:
    """Return whether a stage is one of those that a recovery runs again."""
    recovery, order = status.recovery, list(STAGE_ORDER)
    if recovery is None:
        return False
    first, last = order.index(recovery.damaged), order.index(recovery.until)
    return first <= order.index(stage) <= last


def _is_named_as_damaged(world: World, generation: int, stage: Stage) -> bool:
    """Return whether a result is damaged, or a Job of a lost past still says so.

    Its stage then checks the result, and answers from it if it has been made again since.
    """
    if (generation, stage) in world.damaged:
        return True
    failures = [job.failure for job in world.jobs.values() if job.generation == generation]
    return world.restored and any(f is not None and f.damaged is stage for f in failures)


def _check_recovery(world: World, old: EvolutionStatus, new: EvolutionStatus) -> None:
    """Check that the evolution goes back to a stage that is damaged, and loses nothing else."""
    assert old.stage is not None
    assert new.stage is not None
    assert new.recovery is not None
    assert new.generation == old.generation
    assert _is_named_as_damaged(world, new.generation, new.stage), "a whole result is checked again"
    order = list(STAGE_ORDER)
    assert order.index(new.stage) < order.index(old.stage)
    assert order.index(new.recovery.damaged) <= order.index(new.stage)
    assert order.index(new.recovery.until) >= order.index(old.stage)
    assert new.recoveries <= 3
    assert old.current is not None
    assert new.current is not None
    assert new.current.results == old.current.results, "a result is lost"
    assert new.retry_after is None
    _check_new_attempt(world, new)
    if old.history and old.history[-1].generation == old.generation:
        world.evaluated.pop(old.generation, None)
        assert new.history == old.history[:-1]


def _check_new_attempt(world: World, new: EvolutionStatus) -> None:
    """Check that no Job has the number of an attempt that a recovery begins."""
    key = (new.generation, new.stage, new.attempt)
    assert key not in [job.key for job in world.jobs.values()], f"{key} has been used"


def _order(old: EvolutionStatus, new: EvolutionStatus) -> tuple[Stage, ...]:
    """Return the stages of a generation: after a stage that collapsed, only Publish is left."""
    order = stages_of(new.generation, warm_start=pinned_spec(new).has_warm_start)
    last = new.history[-1] if new.history else None
    if last is None or last.generation != new.generation or last.outcome is not Outcome.COLLAPSED:
        return order
    done = [Stage(name) for name in last.stage_seconds]
    assert done == list(order[: len(done)])
    assert new.stage is Stage.PUBLISH or new.finished
    return (*done, Stage.PUBLISH)


def _check_best(world: World, seen: EmotionEvolution, new: EvolutionStatus) -> None:
    old = seen.status
    assert len(new.history) <= HISTORY_LIMIT == 10
    generations = [entry.generation for entry in new.history]
    assert generations == sorted(set(generations))
    fresh = [e for e in new.history if e.generation not in {o.generation for o in old.history}]
    assert old.current is not None or not fresh
    for entry in fresh:
        assert entry.generation == old.generation
        if entry.outcome is not Outcome.COLLAPSED and old.current is not None:
            pinned = EvolutionSpec.model_validate(old.current.spec)
            assert entry.f1 == world.f1s[min(entry.generation, len(world.f1s) - 1)]
            world.evaluated[entry.generation] = (entry.f1, pinned.promotion.min_delta)
    _check_models(world, seen, new)


def _check_models(world: World, seen: EmotionEvolution, new: EvolutionStatus) -> None:
    best: tuple[int, float] | None = None
    for generation, (f1, delta) in sorted(world.evaluated.items()):
        if best is None or f1 > best[1] + delta:
            best = (generation, f1)
    assert (None if new.best is None else (new.best.generation, new.best.f1)) == best
    promoted = [e for e in new.history if e.outcome in (Outcome.BASELINE, Outcome.PROMOTED)]
    if promoted and new.best is not None:
        assert max(e.f1 for e in promoted) <= new.best.f1
    began = new.generation > 0 and new.generation != seen.status.generation
    if began and new.current is not None and new.best is not None:
        spec = with_label_prior(seen.spec, new.label_prior)
        assert new.current.spec == pinned_json(spec), "the spec is pinned as it is now"
        changed = changed_settings(spec)
        assert new.current.changes == [f"{p}={json.dumps(v)}" for p, v in changed.items()]
        continues = seen.spec.promotion.on_regression is OnRegression.CONTINUE
        if not continues or new.history[-1].outcome is Outcome.COLLAPSED:
            assert new.current.policy_uri == new.best.model_uri
    assert new.best is None or new.without_improvement <= new.generation
    _check_baseline(world, new)


def _check_baseline(world: World, new: EvolutionStatus) -> None:
    """Check what follows from the stages of generation 0: the label prior and the baseline."""
    checked = world.manifests.get((0, Stage.CHECK))
    is_first = new.generation == 0 and (not new.result(Stage.CHECK) or new.stage is Stage.CHECK)
    if checked is None or (is_first and new.recovery is None):
        assert new.label_prior is None
    elif is_first:  # it is counted again, or a damaged result of Check is made again
        assert new.label_prior is None or list(new.label_prior.values()) == checked.label_shares
    else:
        assert list((new.label_prior or {}).values()) == checked.label_shares
        own = world.spec.dataset.label_prior
        assert pinned_spec(new).dataset.label_prior == (own or new.label_prior)
    assert (new.baseline_uri is None) == (new.best is None)
    if new.baseline_uri is not None:
        warm_start = world.manifests.get((0, Stage.WARM_START))
        models = {world.spec.baseline_uri, warm_start.model_uri if warm_start else None}
        assert new.baseline_uri in models
        assert new.history[0].generation > 0 or new.history[0].model_uri == new.baseline_uri


def check_conditions(seen: EmotionEvolution, new: EvolutionStatus, now: datetime) -> None:
    """Check that the conditions are whole, and say the same as the rest of the status."""
    by_type = {c.type: c for c in new.conditions}
    is_recovering = new.recovery is not None and not new.finished
    assert set(by_type) == set(ConditionType) - (
        set() if is_recovering else {ConditionType.RECOVERING}
    )
    assert len(by_type) == len(new.conditions)
    for condition in new.conditions:
        Reason(condition.reason)
        assert condition.observed_generation == seen.metadata.generation
        before = seen.status.condition(condition.type)
        same = before is not None and before.status == condition.status
        expected = before.last_transition_time if before is not None and same else now
        assert condition.last_transition_time == expected
    value = {kind: condition.status for kind, condition in by_type.items()}
    true, false = ConditionStatus.TRUE, ConditionStatus.FALSE
    succeeded = by_type[ConditionType.SUCCEEDED]
    assert (succeeded.status is not ConditionStatus.UNKNOWN) == new.finished
    if new.finished:
        good = Reason(succeeded.reason) in GOOD_ENDS
        assert succeeded.status is (true if good else false)
        assert value[ConditionType.STALLED] is (false if good else true)
        assert value[ConditionType.RECONCILING] is false
        assert value[ConditionType.PROGRESSING] is false
        assert new.phase in (Phase.SUCCEEDED, Phase.COLLAPSED, Phase.FAILED)
    else:
        assert value[ConditionType.STALLED] is false
        assert value[ConditionType.SUSPENDED] is (true if seen.spec.suspend else false)
        assert new.phase in (Phase.RUNNING, Phase.QUEUED, Phase.SUSPENDED)
        assert (new.phase is Phase.SUSPENDED) == seen.spec.suspend
