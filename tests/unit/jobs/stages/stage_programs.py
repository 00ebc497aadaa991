"""The programs of all stages, for tests that hold for each of them."""

from __future__ import annotations

import pytest

from selfemo_jobs.stages.check.stage import PROGRAM as CHECK
from selfemo_jobs.stages.evaluate.stage import PROGRAM as EVALUATE
from selfemo_jobs.stages.flywheel.stage import PROGRAM as FLYWHEEL
from selfemo_jobs.stages.publish.stage import PROGRAM as PUBLISH
from selfemo_jobs.stages.score.stage import PROGRAM as SCORE
from selfemo_jobs.stages.selfplay.stage import PROGRAM as SELF_PLAY
from selfemo_jobs.stages.train.stage import PROGRAM as TRAIN
from selfemo_jobs.stages.warmstart.stage import PROGRAM as WARM_START

PROGRAMS = (CHECK, WARM_START, SELF_PLAY, SCORE, FLYWHEEL, TRAIN, EVALUATE, PUBLISH)
#: Those that answer from a stored result.
ANSWERING = tuple(program for program in PROGRAMS if not program.always_runs)

each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stage.slug)
each_answering_program = pytest.mark.parametrize("program", ANSWERING, ids=lambda p: p.stage.slug)
