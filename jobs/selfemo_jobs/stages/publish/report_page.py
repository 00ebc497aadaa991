"""Writes ``<run>/report.html``, the report of the run so far.

It comes after the best manifest, and before the trackers, which store the report. It shows what can
be made again at any time (``selfemo report``). So a report that cannot be made does not end the
generation: the log has a warning, and the manifest has the reason.
"""

from __future__ import annotations

import logging

from selfemo_api.metrics import PublishMetric
from selfemo_jobs.errors import Terminated, Unavailable, error_line
from selfemo_jobs.report.run_info import info_of_config
from selfemo_jobs.report.write import report_page
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.run_reader import REPORT_FILE
from selfemo_jobs.store import join

log = logging.getLogger(__name__)


def write_report(context: StageContext) -> StageOutput:
    """Write the report of the run so far, replacing the last generation's.

    Parameters
    ----------
    context
        The context of the stage.

    Returns
    -------
    StageOutput
        Whether the report could not be made, and in the report the reason.

    Raises
    ------
    Unavailable
        If the storage cannot be reached.
    """
    run_uri = context.run_uri
    try:
        page = report_page(context.store, run_uri, info_of_config(context.config))
        context.store.put(join(run_uri, REPORT_FILE), page)
    except (Unavailable, Terminated):
        raise
    except Exception as error:
        kind = getattr(error, "kind", type(error).__name__)
        reason = f"{kind}: {error_line(error)}"
        log.warning("the report could not be made; the run goes on: %s", reason, exc_info=True)
        metrics: dict[str, float] = {PublishMetric.REPORT_FAILURES: 1.0}
        return StageOutput(metrics=metrics, report={"reportError": reason})
    return StageOutput(metrics={PublishMetric.REPORT_FAILURES: 0.0})
