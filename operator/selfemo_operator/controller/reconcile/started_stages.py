"""Which stages of an evolution may have had a Job, as far as this process knows.

Before a Job is created, its stage must have no pod that is alive: two attempts must not write at
once. A list of pods answers that, and makes the API server read every pod of the namespace. It is
not needed for the first Job of a stage that no evolution's status and no Job has reached before:
the status is written before the Job is created, so there can be none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selfemo_api.evolution import EmotionEvolution
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_api.status import EvolutionStatus
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.planner.types import CreateJob, StageJob

#: A generation, and the index of a stage. Positions compare in the order of a run.
_Position = tuple[int, int]
_NOWHERE: _Position = (-1, -1)


@dataclass
class _Known:
    """What is known of one evolution."""

    uid: str
    furthest: _Position = _NOWHERE
    """The furthest position of its status and of its Jobs in any reconcile."""
    is_looked_at: bool = False
    """Whether it is known that no pod of before this process is alive: a list has shown none, or
    the evolution is new."""


class StartedStages:
    """The furthest stages of evolutions. Only one worker at a time handles a key."""

    def __init__(self) -> None:
        self._known: dict[Key, _Known] = {}

    def record(self, key: Key, evolution: EmotionEvolution, jobs: Iterable[StageJob]) -> None:
        """Record where an evolution and its Jobs are. It is called in each reconcile."""
        known, status = self._of(key, evolution.metadata.uid), evolution.status
        positions = [_position(job.generation, job.stage) for job in jobs]
        if status.stage is not None:
            positions.append(_position(status.generation, status.stage))
        known.furthest = max([known.furthest, *positions])
        if known.furthest == _NOWHERE and status == EvolutionStatus():
            known.is_looked_at = True  # it is new: no Job is created before the first status

    def record_look(self, key: Key, uid: str) -> None:
        """Record that no pod of an evolution is alive."""
        self._of(key, uid).is_looked_at = True

    def is_looked_at(self, key: Key, uid: str) -> bool:
        """Return whether :meth:`record_look` was called for an evolution."""
        return self._of(key, uid).is_looked_at

    def begin(self, key: Key, uid: str, action: CreateJob) -> bool:
        """Record that a Job may be created from now on; return whether none can have been before.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        uid
            The evolution's uid.
        action
            The Job that is to be created.
        """
        known = self._of(key, uid)
        position = _position(action.config.generation, action.config.stage)
        is_new, known.furthest = position > known.furthest, max(position, known.furthest)
        return known.is_looked_at and is_new and action.attempt == 1

    def forget(self, key: Key) -> None:
        """Forget an evolution that has been deleted."""
        self._known.pop(key, None)

    def _of(self, key: Key, uid: str) -> _Known:
        known = self._known.get(key)
        if known is None or known.uid != uid:
            known = self._known[key] = _Known(uid)
        return known


def _position(generation: int, stage: Stage) -> _Position:
    return generation, STAGE_ORDER.index(stage)
