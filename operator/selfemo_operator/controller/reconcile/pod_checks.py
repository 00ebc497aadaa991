"""When the pods of a Job that has not started are listed, so that the reason is reported."""

from __future__ import annotations

import statistics
from collections import deque
from datetime import datetime, timedelta

from selfemo_operator.controller.objects.job_status import MISSING_POD_AGE
from selfemo_operator.controller.objects.names import Key
from selfemo_operator.planner.types import JobState, Observed

#: The age of a Job at which its pods are listed if they have not started: a kubelet has tried to
#: pull the image by then. Each look costs a list.
FIRST_LOOK = timedelta(seconds=15)
#: The latest time of that look. Where Jobs usually take long to start, as with hundreds at the same
#: time, a Job is looked at once it takes twice as long as others: looks at all of them would slow
#: the API server down further.
LATEST_LOOK = timedelta(seconds=60)
#: The looks that may be made in a minute. With more Jobs that wait, :data:`LATEST_LOOK` grows in
#: proportion: the API server reads all pods of a namespace for each look, which then has hundreds.
LOOKS_A_MINUTE = 100
#: The age at which a Job should have its pods. Where the first look comes later, this one does too.
_MISSING_LOOK = MISSING_POD_AGE + timedelta(seconds=1)
#: The number of starts from which the usual time is known, and the number that it is taken from.
_STARTS_MIN, _STARTS_MAX = 8, 64


#: The time between two looks at the pods of a Job none of which runs any more: one may be on a lost
#: node, and its grace period is not known before.
_IDLE_PERIOD = timedelta(minutes=1)


def _idle_look(since: datetime, now: datetime) -> datetime:
    """Return the next look at a Job that has had no running pod since a time."""
    first = since + _MISSING_LOOK
    return first if now < first else first + ((now - first) // _IDLE_PERIOD + 1) * _IDLE_PERIOD


class PodChecks:
    """The times of these looks. Only one worker at a time handles a key."""

    def __init__(self) -> None:
        #: The Job that was created last for each evolution, and when.
        self._created: dict[Key, tuple[str, datetime]] = {}
        #: The seconds that the last Jobs took from their creation until a pod was known to run.
        self._seconds: deque[float] = deque(maxlen=_STARTS_MAX)

    def created(self, key: Key, name: str, now: datetime) -> datetime:
        """Record the creation of a Job; return when to look at its pods."""
        self._created[key] = name, now
        return now + self._first_look()

    def next_check(self, key: Key, observed: Observed, now: datetime) -> datetime | None:
        """Return when to look at the pods of the Jobs that have not started, or None.

        Parameters
        ----------
        key
            The evolution's namespace and name.
        observed
            The evolution's Jobs as they are now.
        now
            The current time.
        """
        self._record_start(key, observed, now)
        first = self._first_look()
        ages = first, max(first, _MISSING_LOOK)
        times = [
            since + age
            for job in observed.jobs
            if job.state is JobState.PENDING and (since := job.pending_since or job.create_time)
            for age in ages
        ]
        times += [_idle_look(job.idle_since, now) for job in observed.jobs if job.idle_since]
        return min((at for at in times if at > now), default=None)

    def forget(self, key: Key) -> None:
        """Forget an evolution that has been deleted."""
        self._created.pop(key, None)

    def _record_start(self, key: Key, observed: Observed, now: datetime) -> None:
        name, since = self._created.get(key, ("", now))
        job = next((job for job in observed.jobs if job.name == name), None)
        if job is None or job.state is JobState.PENDING:
            return
        del self._created[key]
        if not job.queued and job.state is not JobState.SUSPENDED:
            self._seconds.append((now - since).total_seconds())

    def _first_look(self) -> timedelta:
        seconds = list(self._seconds)
        if len(seconds) < _STARTS_MIN:
            return FIRST_LOOK
        usual = timedelta(seconds=statistics.median(seconds))
        latest = max(LATEST_LOOK, timedelta(minutes=len(self._created) / LOOKS_A_MINUTE))
        return min(max(2 * usual, FIRST_LOOK), latest)
