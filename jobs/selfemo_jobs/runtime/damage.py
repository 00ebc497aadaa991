"""Which stage must run again where a stored result is damaged."""

from __future__ import annotations

import re

from selfemo_api.contract import StageConfig
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_jobs.errors import BadInput, DamagedFiles, DamagedResult, StageError, WrongRows
from selfemo_jobs.store import join

_MANIFEST = re.compile(r"^/generations/(\d{3})/([a-z]+)/manifest\.json$")
_STAGES = {stage.slug: stage for stage in Stage}


def stage_error(config: StageConfig, error: DamagedFiles) -> StageError:
    """Return the error with which a stage ends that found a stored result damaged.

    Parameters
    ----------
    config
        The configuration of the stage that found it.
    error
        The damage.

    Returns
    -------
    StageError
        A DamagedResult if an earlier stage of the same generation wrote the result, otherwise a
        BadInput with what a person can do: that stage is never run again.
    """
    run_uri = join(config.spec.storage.uri, config.run)
    if not error.manifest_uri.startswith(f"{run_uri}/"):
        return error  # another run's model, which has its own advice
    match = _MANIFEST.match(error.manifest_uri.removeprefix(run_uri))
    if match is None or match[2] not in _STAGES:
        return error
    stage = _STAGES[match[2]]
    if int(match[1]) != config.generation:
        return BadInput(f"{error.problem}: {_advice(config, error.manifest_uri, stage)}")
    if STAGE_ORDER.index(stage) >= STAGE_ORDER.index(config.stage):
        return error
    if isinstance(error, WrongRows):
        return DamagedResult(str(error), stage)
    return DamagedResult(f"{error.problem}: {stage.value} has to run again", stage)


def _advice(config: StageConfig, manifest_uri: str, stage: Stage) -> str:
    """Return what helps where the result of another generation is damaged."""
    if manifest_uri in config.replay:
        return "restore it from a backup, or set `overrides.flywheel.replay: 0`"
    if stage in (Stage.WARM_START, Stage.TRAIN):
        return (
            "restore it from a backup, or start another evolution whose `model.resumeFrom` names a "
            "generation with a whole model"
        )
    return "restore it from a backup, or start another evolution"
