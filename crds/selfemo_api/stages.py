"""The stages of a generation, their order, and the names and places that follow from them."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """One step of a generation; each runs as one Job (or one local process)."""

    SELF_PLAY = "SelfPlay"
    SCORE = "Score"
    FLYWHEEL = "Flywheel"
    TRAIN = "Train"
    EVALUATE = "Evaluate"

    @property
    def slug(self) -> str:
        """The lower-case word used in names, paths and module names."""
        return self.value.lower()

    @property
    def module(self) -> str:
        """The module that runs the stage: ``python -m <module> --config …``."""
        return f"selfemo_jobs.stages.{self.slug}"


#: The order within a generation. Generation 0 is only the evaluation of the model as given.
STAGE_ORDER: tuple[Stage, ...] = (
    Stage.SELF_PLAY,
    Stage.SCORE,
    Stage.FLYWHEEL,
    Stage.TRAIN,
    Stage.EVALUATE,
)


def stages_of(generation: int) -> tuple[Stage, ...]:
    """Return the stages of a generation in order."""
    return STAGE_ORDER if generation > 0 else (Stage.EVALUATE,)


def next_stage(generation: int, stage: Stage) -> Stage | None:
    """Return the stage after ``stage``, or None where the generation ends."""
    order = stages_of(generation)
    index = order.index(stage)
    return order[index + 1] if index + 1 < len(order) else None


def job_name(evolution: str, generation: int, stage: Stage, attempt: int) -> str:
    """Return the deterministic name of a stage's Job.

    ``<evolution>-g<NNN>-<stage>-<attempt>``; an evolution's name is at most 36 characters (a rule
    of the CRD), so that with the suffix of an Indexed Job's pods it stays within 63.
    """
    return f"{evolution}-g{generation:03d}-{stage.slug}-{attempt}"


def stage_prefix(generation: int, stage: Stage) -> str:
    """Return a stage's folder below the run's: ``generations/<NNN>/<stage>``."""
    return f"generations/{generation:03d}/{stage.slug}"
