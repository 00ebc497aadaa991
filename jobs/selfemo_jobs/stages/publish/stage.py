"""The publish stage: it makes the outcome of a generation usable outside the run.

Each duty is a function that may be repeated: after a kill at any instruction, the next attempt does
all of them again.
"""

from __future__ import annotations

from selfemo_api.contract import RunOutcomes
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.program import StageProgram

#: The parts of the spec that the result follows from.
RELEVANT = ("publish", "storage.keep", "trackers")


def run_publish(context: StageContext) -> StageOutput:
    """Publish the outcome of a generation.

    Parameters
    ----------
    context
        The context of the stage. Its configuration has the outcomes of the run so far.

    Returns
    -------
    StageOutput
        The metrics of the stage. It has no parts.

    Raises
    ------
    BadInput
        If the configuration has no outcomes.
    Unavailable
        If the storage cannot be reached.
    """
    outcomes_of(context)
    return StageOutput()


def outcomes_of(context: StageContext) -> RunOutcomes:
    """Return the outcomes in a configuration. Raises BadInput if there are none."""
    outcomes = context.config.outcomes
    if outcomes is None:
        raise BadInput("the configuration of Publish has no `outcomes`")
    return outcomes


PROGRAM = StageProgram(stage=Stage.PUBLISH, work=run_publish, relevant=RELEVANT, always_runs=True)
