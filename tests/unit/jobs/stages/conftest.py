"""What the tests of all stages share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from selfemo_api.spec import EvolutionSpec
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.stages.evaluate.stage import PROGRAM as EVALUATE
from selfemo_jobs.stages.flywheel.stage import PROGRAM as FLYWHEEL
from selfemo_jobs.stages.score.stage import PROGRAM as SCORE
from selfemo_jobs.stages.selfplay.stage import PROGRAM as SELF_PLAY
from selfemo_jobs.stages.train.stage import PROGRAM as TRAIN

PROGRAMS = (SELF_PLAY, SCORE, FLYWHEEL, TRAIN, EVALUATE)


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.stage.slug)
def program(request: pytest.FixtureRequest) -> StageProgram:
    """Each stage's program."""
    stage_program: StageProgram = request.param
    return stage_program


@pytest.fixture
def full_spec(make_spec: Callable[..., EvolutionSpec]) -> EvolutionSpec:
    """A spec in which every optional part is set, so that it has every leaf field."""
    stages = ("shared", "selfPlay", "score", "flywheel", "train", "evaluate")
    return make_spec(
        reward={"judge": {"views": [{"past": 1}]}},
        training={"lora": {}},
        evolution={"goal": {"f1": 0.9}},
        storage={"credentialsSecretRef": {"name": "keys"}},
        queue={"name": "queue"},
        resumeFrom={"uri": "file:///first/manifest.json"},
        podTemplate={stage: {"image": "first"} for stage in stages},
    )
