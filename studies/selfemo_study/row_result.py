"""The result of a row, whatever its kind: its generations, its best one, and how it ended."""

from __future__ import annotations

from pydantic import Field

from selfemo_api.api_model import ApiModel, JsonObject
from selfemo_api.status import Outcome

DEV, TEST = "dev", "test"
#: The outcome of a control, which is neither promoted nor rolled back.
CONTROL = "Control"
BASELINE, PROMOTED = Outcome.BASELINE.value, Outcome.PROMOTED.value


class Generation(ApiModel):
    """One generation of a row."""

    generation: int
    outcome: str
    dev: float | None = None
    """Weighted F1 on dev. None: the generation collapsed before it was measured."""
    test: float | None = None
    """Weighted F1 on test. None: test is read only for generation 0, promoted generations and the
    best."""
    seconds: dict[str, float] = {}
    """Seconds by stage."""
    steps: int = 0
    """Optimizer steps."""
    kept_groups: int | None = None
    """Groups that the flywheel kept. None: there was no flywheel."""
    examples: int | None = None
    """Completions in these steps; of a supervised control, utterances."""


class CurvePoint(ApiModel):
    """Dev F1 at one time of the training."""

    seconds: float
    """Seconds of work so far, without the measuring."""
    steps: int
    """Optimizer steps so far."""
    dev: float
    """Weighted F1 on dev."""


class RowResult(ApiModel):
    """The result of a row and seed."""

    study: str
    row: str
    kind: str
    seed: int
    phase: str
    """How it ended: Succeeded or Collapsed."""
    message: str = ""
    best: int
    """The number of the generation that was trained: of an evolution, the one that dev selected."""
    generations: list[Generation]
    curve: list[CurvePoint] = []
    settings: JsonObject = Field(alias="asked")
    """All settings that the result follows from."""
    versions: dict[str, str]

    def generation(self, number: int) -> Generation:
        """Return the generation with a number. Raises KeyError."""
        for generation in self.generations:
            if generation.generation == number:
                return generation
        raise KeyError(number)

    @property
    def selected(self) -> int:
        """The number of the generation that dev selects; a control may not have raised dev.

        An evolution keeps generation 0 where no other one is better. A control is selected in the
        same way. Otherwise steps that are not used would count against it.
        """
        dev = {g.generation: g.dev for g in self.generations if g.dev is not None}
        trained = self.generation(self.best)
        if trained.outcome != CONTROL or 0 not in dev or self.best not in dev:
            return self.best
        return self.best if dev[self.best] > dev[0] else 0

    @property
    def steps(self) -> int:
        """Optimizer steps of all generations, promoted or not."""
        return sum(g.steps for g in self.generations)

    @property
    def promoted(self) -> list[int]:
        """The numbers of generation 0 and of the promoted generations, in order."""
        return [g.generation for g in self.generations if g.outcome in (BASELINE, PROMOTED)]

    def best_after(self, last: int | None) -> int:
        """Return the number of the generation that was the best after another one.

        Parameters
        ----------
        last
            The number of the last generation that counts. None: all of them count.
        """
        if last is None:
            return self.best
        return max(g for g in self.promoted if g <= last)
