"""Edits of the spec: which stages run again, with which spec, and from which results. Pure.

A stage answers from its stored result, and what it reads was recorded before. So where an edit
changes what an earlier stage of the generation has read, that stage has to run again: otherwise a
generation would mix the results of two specs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from selfemo_api.comparison import PLACEMENT_ARGUMENTS, comparison_error, with_label_prior
from selfemo_api.recipes.recipe import leaves
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import STAGE_ORDER, Stage, stages_of
from selfemo_api.status import EvolutionStatus, Recovery
from selfemo_operator.planner.pinning import (
    judge_of,
    pinned,
    pinned_json,
    pinned_spec,
    refusal,
)
from selfemo_operator.planner.recovery import fresh_attempt, next_attempt, widened
from selfemo_operator.planner.types import StageJob, StatusChanges

#: Parts of the spec that no result of a stage before Publish follows from.
_UNREAD = (
    "ablation",
    "deadlines",
    "failurePolicy",
    "managedBy",
    "overrides",  # the settings that they change are compared themselves, as those of the recipe
    "podTemplate",
    "promotion",
    "publish",
    "queue",
    "recipe",
    "stopping",
    "storage",
    "suspend",
    "trackers",
    "ttlSecondsAfterFinished",
)
#: Fields that only say how the values of the others came about.
_RECIPE_FIELDS = ("ablation", "overrides", "recipe")
#: Settings that place, divide or speed up the work. A result follows from them by rounding alone,
#: and to edit one is what helps if memory is short: it must not cost the results so far.
_PLACEMENT = (
    "evaluation.batchSize",
    "resources",
    "selfPlay.batchPrompts",
    "selfPlay.shards",
    "training.gradientCheckpointing",
    "training.microBatchSize",
    *(f"selfPlay.engineArgs.{name}" for name in sorted(PLACEMENT_ARGUMENTS)),
)
#: The first stage of generation 0 that reads a setting, by the longest path that has an entry.
_BASELINE_READERS = {"": Stage.WARM_START, "dataset": Stage.CHECK}
#: The same for later generations.
_LATER_READERS = {
    "": Stage.SELF_PLAY,
    "reward": Stage.SCORE,
    "reward.judge": Stage.SELF_PLAY,
    "training.trainLayers": Stage.SCORE,
    "flywheel": Stage.FLYWHEEL,
    "training.batchSize": Stage.FLYWHEEL,
    "training.imitation": Stage.FLYWHEEL,
    "training": Stage.TRAIN,
    "warmStart": Stage.TRAIN,
    "evaluation": Stage.EVALUATE,
}


def first_reader(generation: int, path: str) -> Stage | None:
    """Return the first stage of a generation whose result follows from a setting, or None.

    The stages compare their settings themselves. So an early stage here costs a Job that answers
    from its result, and never a wrong result.

    Parameters
    ----------
    generation
        The number of the generation.
    path
        The dotted path of the setting in the resolved spec.

    Examples
    --------
    >>> first_reader(1, "training.optimizer.learningRate")
    <Stage.TRAIN: 'Train'>
    >>> first_reader(1, "deadlines.stageActiveSeconds") is None
    True
    """
    readers = _LATER_READERS if generation > 0 else _BASELINE_READERS
    names = path.split(".")
    for count in range(len(names), 0, -1):
        above = ".".join(names[:count])
        if above in _UNREAD or above in _PLACEMENT:
            return None
        if above in readers:
            return readers[above]
    return readers[""]


def reopened(status: EvolutionStatus, now: datetime) -> EvolutionStatus:
    """Return the status of a finished evolution that continues.

    The time since the end does not count for deadlines, as if it was suspended.
    """
    rested = 0.0
    if status.start_time is not None and status.completion_time is not None:
        rested = (now - status.completion_time).total_seconds()
    changes: StatusChanges = {
        "completion_time": None,
        "retry_after": None,
        "failures": 0,
        "disruptions": 0,
        "replaced_pods": 0,
        "recent_replacements": None,
        "recoveries": 0,
        "last_failure": None,
        "suspended_seconds": status.suspended_seconds + max(0.0, rested),
    }
    return status.model_copy(update=changes)


def retried(
    spec: EvolutionSpec, status: EvolutionStatus, jobs: Sequence[StageJob]
) -> EvolutionStatus:
    """Return the status with another attempt of the generation, with the spec as it is now.

    The edit may have added or removed the warm start. The stage is then another one. If it changed
    what an earlier stage has read, the generation goes back to that stage, as in a recovery: a
    result that follows from equal settings is used again. Check counts the label prior again.

    Parameters
    ----------
    spec
        The spec as it is now.
    status
        The status, with a generation that is not complete.
    jobs
        All Jobs of the evolution. The number of the new attempt must not be that of one of them.
    """
    current = status.current
    if current is None:
        raise ValueError("no generation is in progress")
    if _is_closed(status):
        spec = _closed_spec(spec, status)
    counted = with_label_prior(spec, status.label_prior)
    stages = stages_of(status.generation, warm_start=spec.has_warm_start)
    results = [result for result in current.results if result.stage in stages]
    stage = next(stage for stage in stages if status.result(stage) is None)
    recovery = status.recovery
    if recovery is not None and not {recovery.damaged, recovery.until} <= set(stages):
        recovery = None
    if _is_closed(status):
        stage = Stage.PUBLISH
    else:
        edited = _outdated(counted, status, stages)
        if (recovery or edited) and status.stage in stages:
            stage = min(stage, status.stage, key=stages.index)  # a result may be a damaged one
        if edited is not None:
            stage = min(stage, edited.damaged, key=stages.index)
            recovery = widened(recovery, edited)
    numbered = next_attempt if stage is status.stage else fresh_attempt
    changes: StatusChanges = {
        "stage": stage,
        "attempt": numbered(status, stage, jobs),
        "recovery": recovery,
    }
    if stage is Stage.CHECK:
        changes["label_prior"] = None  # it is counted again
        counted = spec
    policy, best = current.policy_uri, current.previous_best
    judge = current.judge_uri
    chosen = pinned_spec(status).reward.judge.model
    if status.generation > 0 and counted.reward.judge.model is not chosen:
        judge = judge_of(counted, status, policy=policy, best=best)
    renewed = pinned(counted, policy=policy, judge=judge, best=best)
    changes["current"] = renewed.model_copy(update={"results": results})
    return status.model_copy(update=changes)


def restarted(
    spec: EvolutionSpec, status: EvolutionStatus, jobs: Sequence[StageJob]
) -> EvolutionStatus | None:
    """Return the status of generation 0 with another spec, or None if that goes on as it is.

    Before the baseline is measured, settings that generations are compared with may be edited. The
    edit has to count now: with the baseline of the earlier settings, no generation could follow. A
    spec that breaks a rule is left to the end of the generation.

    Parameters
    ----------
    spec
        The spec as it is now.
    status
        The status. Its other edits count from now on, too.
    jobs
        All Jobs of the evolution.
    """
    if status.current is None or status.generation > 0 or status.best is not None:
        return None
    counted = with_label_prior(spec, status.label_prior)
    if pinned_json(counted) == status.current.spec or refusal(counted, status) is not None:
        return None
    if not comparison_error(pinned_spec(status), counted):
        return None
    changes: StatusChanges = {
        "failures": 0,
        "disruptions": 0,
        "replaced_pods": 0,
        "recent_replacements": None,
        "retry_after": None,
        "recoveries": 0,  # those of the spec before: the edit is not a recovery
        "last_failure": None,
    }
    return retried(spec, status, jobs).model_copy(update=changes)


def _outdated(
    spec: EvolutionSpec, status: EvolutionStatus, stages: tuple[Stage, ...]
) -> Recovery | None:
    """Return the stages that an edit makes run again, or None.

    The last of them is the one that failed. It may have stored a result that was not recorded.

    Parameters
    ----------
    spec
        The spec as it is now, with its label prior.
    status
        The status, with the spec that was pinned before.
    stages
        The stages of the generation, with the spec as it is now.
    """
    before = pinned_spec(status)
    found = (first_reader(status.generation, path) for path in _changed_paths(before, spec))
    readers = [reader for reader in found if reader is not None]
    if not readers:
        return None
    first = min(readers, key=STAGE_ORDER.index)
    following = next(stage for stage in stages if status.result(stage) is None)
    ends = {following, status.stage} & set(stages)
    until = max(ends, key=stages.index)
    again = [s for s in stages if STAGE_ORDER.index(s) >= STAGE_ORDER.index(first)]
    stored = next((s for s in again if status.result(s) is not None), following)
    if stored not in again or stages.index(stored) > stages.index(until) or until is Stage.CHECK:
        return None  # no result follows from what was edited; Check always runs
    return Recovery(damaged=stored, until=until)


def _changed_paths(before: EvolutionSpec, after: EvolutionSpec) -> list[str]:
    """Return the dotted paths of the settings in which two resolved specs differ."""
    old, new = _settings(before), _settings(after)
    return [path for path in {**old, **new} if old.get(path) != new.get(path)]


def _settings(spec: EvolutionSpec) -> dict[str, Any]:
    """Return the settings of a resolved spec by path. An empty object has none."""
    return {path: value for path, value in leaves(spec.to_json()).items() if value != {}}


def _closed_spec(spec: EvolutionSpec, status: EvolutionStatus) -> EvolutionSpec:
    """Return the pinned spec with the edits of what Publish reads and of how it runs.

    The other results of the generation follow from the pinned spec, and none of them is made again.
    So the other edits wait for the next generation.
    """
    settings, edited = pinned_spec(status).to_json(), spec.to_json()
    for name in _UNREAD:
        if name not in _RECIPE_FIELDS:
            settings.pop(name, None)
            if name in edited:
                settings[name] = edited[name]
    return EvolutionSpec.model_validate(settings)


def _is_closed(status: EvolutionStatus) -> bool:
    """Return whether the outcome of the generation in progress is recorded."""
    return bool(status.history) and status.history[-1].generation == status.generation
