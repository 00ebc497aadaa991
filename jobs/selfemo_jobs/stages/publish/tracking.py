"""Feeds the trackers of the spec, and reports which of them did not take the figures."""

from __future__ import annotations

import logging

from selfemo_api.metrics import PublishMetric
from selfemo_jobs.errors import Terminated, Unavailable, error_line
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.trackers import track_generation

log = logging.getLogger(__name__)


def feed_trackers(context: StageContext) -> StageOutput:
    """Write the generations to the trackers of the spec. A tracker never ends the stage.

    Call it after the report is in the storage, since some tools store it.

    Parameters
    ----------
    context
        The context of the stage.

    Returns
    -------
    StageOutput
        The number of trackers that failed, and in the report the error of each. Both are empty
        without trackers.

    Raises
    ------
    Unavailable
        If the storage cannot be reached.
    """
    trackers = context.config.spec.trackers
    if not trackers:
        return StageOutput()
    try:
        results = track_generation(context)
        errors = {t.value: r.error for t, r in results.items() if r.error is not None}
    except (Unavailable, Terminated):
        raise
    except Exception as error:  # for example a damaged manifest of an earlier generation
        kind = getattr(error, "kind", type(error).__name__)
        reason = f"{kind}: {error_line(error)}"
        log.warning("the trackers got nothing; the run goes on: %s", reason, exc_info=True)
        errors = dict.fromkeys((tracker.value for tracker in trackers), reason)
    return StageOutput(
        metrics={PublishMetric.TRACKER_FAILURES: float(len(errors))},
        report={"trackerErrors": errors} if errors else {},
    )
