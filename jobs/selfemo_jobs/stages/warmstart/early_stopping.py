"""Training until the selection dataset stops rising. The best weights are kept.

F1 is measured before the first step, every `warmStart.evaluationSteps`, and after the last step.
The training ends after `warmStart.patience` evaluations without a higher F1.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from selfemo_api.metrics import ProgressField
from selfemo_api.spec import WarmStartSpec
from selfemo_jobs.errors import BadInput, Terminated
from selfemo_jobs.runtime.sigterm import deferred_sigterm
from selfemo_jobs.stages.warmstart.checkpoints import (
    EvaluationPoint,
    WarmStartState,
    load_checkpoint,
    save_checkpoint,
)
from selfemo_jobs.stages.warmstart.supervised_trainer import SupervisedTrainer

log = logging.getLogger(__name__)

#: The share of `warmStart.steps` in which the learning rate rises from 0.
WARMUP = 0.05

#: Is called after each step, with the number of steps and the fields of a progress line.
OnProgress = Callable[[int, dict[ProgressField, float]], None]


def constant_rate(step: int, steps: int) -> float:
    """Return the factor of the learning rate: it rises linearly, and then stays.

    Parameters
    ----------
    step
        The number of the step, from 0.
    steps
        The largest number of steps.

    Examples
    --------
    >>> [constant_rate(step, 80) for step in (0, 1, 3, 79)]
    [0.25, 0.5, 1.0, 1.0]
    """
    return min(1.0, (step + 1) / max(1, round(steps * WARMUP)))


@dataclass
class WarmStartTraining:
    """A training with early stopping, and its checkpoints."""

    trainer: SupervisedTrainer
    settings: WarmStartSpec
    evaluate: Callable[[], float]
    """Returns the weighted F1 of the trainer's model on the selection dataset, from 0 to 1."""
    folder: Path
    """The folder of the checkpoints."""
    checkpoint_steps: int
    """The largest number of steps between two checkpoints."""
    on_progress: OnProgress
    evaluations: list[EvaluationPoint] = field(default_factory=list)
    """The evaluations so far."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """The trained weights of the best evaluation. Empty: no evaluation was better than the first,
    before any step."""
    losses: list[float] = field(default_factory=list)
    """The loss of each step since the last evaluation."""

    @property
    def best(self) -> EvaluationPoint:
        """The first evaluation with the highest F1."""
        return max(self.evaluations, key=lambda point: point.weighted_f1)

    def run(self) -> None:
        """Train, or continue from the last checkpoint, until F1 stops rising.

        Raises
        ------
        BadInput
            If the loss is not finite.
        Terminated
            If SIGTERM arrived. A checkpoint is written.
        """
        self._restore()
        while True:
            if self._evaluation_is_due():
                self._evaluate()
            if self._is_finished():
                return
            self._train_until_evaluation()

    def _restore(self) -> None:
        state = load_checkpoint(self.folder)
        if state is None:
            return
        self.trainer.load_state(dict(state.trainer))
        self.evaluations, self.losses = state.evaluations, state.losses
        self.best_weights = dict(state.best)
        log.info("resumes from a checkpoint", extra={"fields": {"step": self.trainer.step}})

    def _save(self) -> None:
        state = WarmStartState(
            self.trainer.state(), self.best_weights, self.evaluations, self.losses
        )
        save_checkpoint(self.folder, self.trainer.step, state)

    def _evaluation_is_due(self) -> bool:
        step = self.trainer.step
        if self.evaluations and self.evaluations[-1].step == step:
            return False
        return step % self.settings.evaluation_steps == 0 or step >= self.settings.steps

    def _is_finished(self) -> bool:
        """Return whether all steps were made, or the last evaluations brought no higher F1."""
        since_best = len(self.evaluations) - 1 - self.evaluations.index(self.best)
        return self.trainer.step >= self.settings.steps or since_best >= self.settings.patience

    def _evaluate(self) -> None:
        """Measure F1, keep the weights if they are the best, and write a checkpoint."""
        try:
            f1 = self.evaluate()
        except Terminated:
            self._save()  # the steps since the last checkpoint are not lost
            raise
        loss = math.fsum(self.losses) / len(self.losses) if self.losses else None
        self.evaluations.append(EvaluationPoint(self.trainer.step, f1, loss))
        self.losses = []
        if self.trainer.step > 0 and self.best.step == self.trainer.step:
            self.best_weights = self.trainer.weights()
        self._save()
        self._report({})

    def _train_until_evaluation(self) -> None:
        with deferred_sigterm() as sigterm:
            while not self._evaluation_is_due():
                rate = self.trainer.learning_rate
                loss = self.trainer.make_step()
                self._check_loss(loss)
                self.losses.append(loss)
                fields = {
                    ProgressField.LOSS: round(loss, 6),
                    ProgressField.LEARNING_RATE: rate,
                }
                self._report(fields)
                if sigterm.received:
                    self._save()
                    raise Terminated("ended by SIGTERM; the same command continues from here")
                if self.trainer.step % self.checkpoint_steps == 0:
                    self._save()

    def _report(self, fields: dict[ProgressField, float]) -> None:
        """Write a progress line, which always has the F1 of the last evaluation."""
        f1 = self.evaluations[-1].weighted_f1
        self.on_progress(self.trainer.step, {**fields, ProgressField.WEIGHTED_F1: f1})

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise BadInput(
                f"the warm start diverged: the loss is {loss} at step {self.trainer.step}; lower "
                f"`overrides.warmStart.learningRate` ({self.settings.learning_rate})"
            )
