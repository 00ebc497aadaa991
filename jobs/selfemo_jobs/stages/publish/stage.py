"""The publish stage: it makes the outcome of a generation usable outside the run.

Each duty is a function that may be repeated: after a kill at any instruction, the next attempt does
all of them again. They run in this order:

1. scores into the model's description, since the next duties name and copy that model;
2. the best manifest, before anything that may fail for a reason outside the run;
3. the report, which the trackers store;
4. the trackers, which never end the stage;
5. the copy to ``publish``, which fails if the target may not be written;
6. the removal of models, which cannot be undone: nothing is removed while a copy fails.
"""

from __future__ import annotations

from selfemo_api.contract import GenerationOutcome, RunOutcomes
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.fingerprint import storage_relative
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.stages.publish.best import update_best
from selfemo_jobs.stages.publish.copy_model import copy_best
from selfemo_jobs.stages.publish.description import add_scores
from selfemo_jobs.stages.publish.report_page import write_report
from selfemo_jobs.stages.publish.retention import remove_models
from selfemo_jobs.stages.publish.tracking import feed_trackers

#: The parts of the spec that the result follows from.
RELEVANT = ("publish", "storage.keep", "trackers")
_DUTIES = 6


def run_publish(context: StageContext) -> StageOutput:
    """Publish the outcome of a generation.

    Parameters
    ----------
    context
        The context of the stage. Its configuration has the outcomes of the run so far.

    Returns
    -------
    StageOutput
        The metrics of the stage, and the errors that did not end it. It has no parts.

    Raises
    ------
    BadInput
        If the configuration has no outcomes, a file of the run is damaged, or the model may not be
        written to ``spec.publish``.
    Unavailable
        If the storage or the hub cannot be reached.
    """
    outcomes = outcomes_of(context)
    add_scores(context)
    context.progress(1, _DUTIES)
    best = update_best(context, outcomes.best)
    context.progress(2, _DUTIES)
    report = write_report(context)
    context.progress(3, _DUTIES)
    tracked = feed_trackers(context)
    context.progress(4, _DUTIES)
    copied = copy_best(context, outcomes.best, best)
    context.progress(5, _DUTIES)
    removed = remove_models(context, outcomes, best)
    context.progress(6, _DUTIES)
    return StageOutput(
        metrics={**report.metrics, **tracked.metrics, **copied.metrics, **removed.metrics},
        report={**report.report, **tracked.report},
        outcome=_stored_outcome(context, outcomes),
    )


def _stored_outcome(context: StageContext, outcomes: RunOutcomes) -> GenerationOutcome | None:
    """Return the outcome of the published generation with no address of the storage."""
    config = context.config
    for outcome in outcomes.generations:
        if outcome.generation == config.generation:
            model = storage_relative(outcome.model_uri, config.spec.storage.uri)
            return outcome.model_copy(update={"model_uri": model})
    return None


def outcomes_of(context: StageContext) -> RunOutcomes:
    """Return the outcomes in a configuration. Raises BadInput if there are none."""
    outcomes = context.config.outcomes
    if outcomes is None:
        raise BadInput("the configuration of Publish has no `outcomes`")
    return outcomes


PROGRAM = StageProgram(stage=Stage.PUBLISH, work=run_publish, relevant=RELEVANT, always_runs=True)
