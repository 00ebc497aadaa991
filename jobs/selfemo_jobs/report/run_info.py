"""What is known about a run besides its manifests: its spec, and what the planner decided."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from selfemo_api.contract import GenerationOutcome, StageConfig
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.recipes import changed_settings
from selfemo_api.spec import EvolutionSpec
from selfemo_api.status import ConditionType, EvolutionStatus, Outcome


@dataclass(frozen=True)
class RunInfo:
    """What a report is made from besides the manifests. All but the name may be unknown."""

    run: str
    """The name of the run, ``<namespace>/<name>-<uid8>``."""
    spec: EvolutionSpec | None = None
    """The resolved spec; None if it is not available."""
    outcomes: Mapping[int, GenerationOutcome] = field(default_factory=dict)
    """The outcomes that the status or the configuration has. Of other generations, the manifests of
    Publish have them; an outcome that is in neither follows from the scores."""
    best: int | None = None
    """The number of the best generation; None: it follows from the scores."""
    changes: Sequence[str] = ()
    """The settings in which the spec differs from its recipe, as ``path=value``."""
    state: str = ""
    """Phase and message of the evolution; empty if they are not available."""

    @property
    def name(self) -> str:
        """The name of the evolution, without its namespace and uid."""
        return self.run.rsplit("/", 1)[-1].rpartition("-")[0] or self.run


def info_of_evolution(evolution: EmotionEvolution, run: str) -> RunInfo:
    """Return what a resource contains about its run.

    Parameters
    ----------
    evolution
        The resource. Its status may be empty.
    run
        The name of the run, ``<namespace>/<name>-<uid8>``.
    """
    status = evolution.status
    return RunInfo(
        run=run,
        spec=evolution.spec,
        outcomes={
            record.generation: GenerationOutcome(
                generation=record.generation,
                outcome=record.outcome,
                f1=record.f1,
                model_uri=record.model_uri,
                message=record.message,
            )
            for record in status.history
        },
        best=status.best.generation if status.best else None,
        changes=tuple(status.current.changes) if status.current else changes_of(evolution.spec),
        state=_phase_and_message(status),
    )


def info_of_config(config: StageConfig) -> RunInfo:
    """Return what the configuration of a stage contains about its run.

    Parameters
    ----------
    config
        The configuration. That of Publish has the outcomes.
    """
    outcomes = config.outcomes
    if outcomes is None:
        return RunInfo(run=config.run, spec=config.spec, changes=changes_of(config.spec))
    last = outcomes.generations[-1] if outcomes.generations else None
    state = ""
    if last is not None:
        reason = f": {last.message}" if last.message else ""
        state = f"After generation {last.generation}{reason}"
    return RunInfo(
        run=config.run,
        spec=config.spec,
        outcomes={outcome.generation: outcome for outcome in outcomes.generations},
        best=outcomes.best.generation,
        changes=tuple(outcomes.changes),
        state=state,
    )


def changes_of(spec: EvolutionSpec) -> tuple[str, ...]:
    """Return the settings in which a resolved spec differs from its recipe, as ``path=value``.

    Parameters
    ----------
    spec
        The resolved spec.
    """
    return tuple(f"{path}={json.dumps(value)}" for path, value in changed_settings(spec).items())


#: The text of each outcome on the page.
OUTCOMES: Mapping[Outcome, str] = {
    Outcome.BASELINE: "baseline",
    Outcome.PROMOTED: "promoted",
    Outcome.ROLLED_BACK: "rolled back",
    Outcome.CONTINUED: "continued",
    Outcome.COLLAPSED: "collapsed",
}


def _phase_and_message(status: EvolutionStatus) -> str:
    """Return the phase of the evolution, and the planner's message about it."""
    if not status.conditions:
        return ""
    kind = ConditionType.SUCCEEDED if status.finished else ConditionType.PROGRESSING
    condition = status.condition(kind)
    message = f": {condition.message}" if condition and condition.message else ""
    return f"{status.phase.value}{message}"
