"""Feeds the trackers of the spec, and reports which of them did not take the figures."""

from __future__ import annotations

from selfemo_api.metrics import PublishMetric
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.trackers import track_generation


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
    results = track_generation(context)
    if not results:
        return StageOutput()
    errors = {t.value: r.error for t, r in results.items() if r.error is not None}
    return StageOutput(
        metrics={PublishMetric.TRACKER_FAILURES: float(len(errors))},
        report={"trackerErrors": errors} if errors else {},
    )
