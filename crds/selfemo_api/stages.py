"""The stages of a generation, their order, and the names that are derived from them."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """One step of a generation. It runs as one Job, or as one local process."""

    CHECK = "Check"
    WARM_START = "WarmStart"
    SELF_PLAY = "SelfPlay"
    SCORE = "Score"
    FLYWHEEL = "Flywheel"
    TRAIN = "Train"
    EVALUATE = "Evaluate"
    PUBLISH = "Publish"

    @property
    def slug(self) -> str:
        """The lower-case name, for paths and for names of Jobs and modules."""
        return self.value.lower()

    @property
    def module(self) -> str:
        """The module of the stage, to be started as ``python -m <module> --config FILE``."""
        return f"selfemo_jobs.stages.{self.slug}"


#: The stages of generation 0, which evaluates the baseline.
_BASELINE_STAGES = (Stage.CHECK, Stage.WARM_START, Stage.EVALUATE, Stage.PUBLISH)
#: The stages of each later generation.
_LATER_STAGES = (
    Stage.SELF_PLAY,
    Stage.SCORE,
    Stage.FLYWHEEL,
    Stage.TRAIN,
    Stage.EVALUATE,
    Stage.PUBLISH,
)
#: All stages, in an order that holds within each generation.
STAGE_ORDER: tuple[Stage, ...] = (Stage.CHECK, Stage.WARM_START, *_LATER_STAGES)


def stages_of(generation: int, *, warm_start: bool = False) -> tuple[Stage, ...]:
    """Return the stages of a generation in their order.

    Parameters
    ----------
    generation
        The number of the generation.
    warm_start
        Whether generation 0 has a warm start. Later generations have none.

    Examples
    --------
    >>> stages_of(0)
    (<Stage.CHECK: 'Check'>, <Stage.EVALUATE: 'Evaluate'>, <Stage.PUBLISH: 'Publish'>)
    """
    if generation > 0:
        return _LATER_STAGES
    return tuple(s for s in _BASELINE_STAGES if warm_start or s is not Stage.WARM_START)


def next_stage(generation: int, stage: Stage, *, warm_start: bool = False) -> Stage | None:
    """Return the next stage of a generation, or None at its end.

    Parameters
    ----------
    generation
        The number of the generation.
    stage
        The stage before.
    warm_start
        Whether generation 0 has a warm start.

    Examples
    --------
    >>> next_stage(1, Stage.SELF_PLAY)
    <Stage.SCORE: 'Score'>
    """
    order = stages_of(generation, warm_start=warm_start)
    index = order.index(stage)
    return order[index + 1] if index + 1 < len(order) else None


def job_name(evolution: str, generation: int, stage: Stage, attempt: int) -> str:
    """Return the name of the Job of an attempt: ``<evolution>-g<NNN>-<stage>-<attempt>``.

    A rule of the CRD limits the name of an evolution to 36 characters. With the suffix of an
    Indexed Job's pods, the result then has at most 63 characters.

    Parameters
    ----------
    evolution
        The name of the evolution.
    generation
        The number of the generation.
    stage
        The stage.
    attempt
        The number of the attempt, from 1.

    Examples
    --------
    >>> job_name("demo", 2, Stage.TRAIN, 1)
    'demo-g002-train-1'
    """
    return f"{evolution}-g{generation:03d}-{stage.slug}-{attempt}"


def stage_prefix(generation: int, stage: Stage) -> str:
    """Return the folder of a stage, relative to the run's: ``generations/<NNN>/<stage>``.

    Parameters
    ----------
    generation
        The number of the generation.
    stage
        The stage.

    Examples
    --------
    >>> stage_prefix(2, Stage.TRAIN)
    'generations/002/train'
    """
    return f"generations/{generation:03d}/{stage.slug}"
