"""Fixtures for the tests of the flywheel."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.jobs.stages.flywheel.candidates import RECOGNIZER, RESPONDER, Group

from selfemo_api.contract import ENV_TERMINATION_LOG, ENV_WORK, StageConfig
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.stages import flywheel

assert flywheel.__doc__


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stage's scratch folder."""
    work = tmp_path / "work"
    monkeypatch.setenv(ENV_WORK, str(work))
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(tmp_path / "result.json"))
    return work


@pytest.fixture
def make_flywheel(
    make_config: Callable[..., StageConfig], make_spec: Callable[..., EvolutionSpec]
) -> Callable[..., StageConfig]:
    """Build the stage's configuration; keyword arguments are fields of `spec.flywheel`."""

    def build(
        score: str, earlier: list[str] | None = None, output: str | None = None, **changes: object
    ) -> StageConfig:
        spec = make_spec(flywheel=changes)
        config = make_config(
            Stage.FLYWHEEL, generation=3, spec=spec, parents={"score": score}, replay=earlier or []
        )
        return config.model_copy(update={"output": output}) if output else config

    return build


@pytest.fixture(scope="session")
def groups() -> list[Group]:
    """Return 300 groups of both roles; every filter drops some of them."""
    rng = random.Random(11)
    labels = ["neutral"] * 6 + ["joy", "joy", "anger", "fear"]
    words = [f"word{i}" for i in range(60)]
    sentences = [" ".join(rng.choices(words, k=9)) for _ in range(40)]
    made = []
    for index in range(300):
        role = RESPONDER if index % 2 else RECOGNIZER
        rewards = tuple(round(rng.uniform(-0.2, 1.0), 3) for _ in range(4))
        copied = index % 10 == 0
        made.append(
            Group(
                f"g{index:04d}",
                role,
                label=rng.choice(labels),
                rewards=(0.5,) * 4 if index % 9 == 0 else rewards,
                consistency=round(rng.uniform(0.1, 1.0), 3),
                prompt=(7, 7) if copied else None,
                completions=((1,), (2,), (3,), (4,)) if copied else None,
                texts=tuple(rng.choice(sentences) for _ in range(4)),
                generation=3,
            )
        )
    return made
