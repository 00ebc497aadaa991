"""The training process of the row kind `adamatch`: semi-supervised training without roles.

After AdaMatch (Berthelot et al. 2021, arXiv 2106.04732): in each step, the model reads unlabeled
utterances in a weak view, which shows the most turns. Its predictions are aligned to the label
prior. Those above a threshold, which is relative to the confidence on labeled utterances, train the
same utterances in a strong view, which shows less. Labeled utterances are part of each step.

Different from AdaMatch: the alignment refers to the frequencies of the labeled subset, and texts
have no interpolated logits. The model that is stored is the moving average of the weights.
"""

from __future__ import annotations

import logging
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selfemo_api.spec import EvolutionSpec, View
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.prompts import prompt_set_of
from selfemo_jobs.stages.selfplay.stage import read_sources
from selfemo_jobs.stages.warmstart.examples import Example
from selfemo_jobs.store.volumes import local_path
from selfemo_study.study_config import StudyError
from selfemo_study.worker_rows import (
    Checkpoint,
    TrainingJob,
    WorkClock,
    checkpoint_folder,
    run_worker,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from selfemo_jobs.prompts.sets import PromptSet

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

#: Labeled examples of a step, half of the warm start's batch.
LABELED_EXAMPLES = 12
#: Unlabeled utterances for each labeled one. AdaMatch has three.
RATIO = 3
#: The threshold is this share of the mean confidence on labeled utterances, as in AdaMatch.
RELATIVE_THRESHOLD = 0.9
#: The share of the running mean of the predictions that a step keeps. AdaMatch's mean over 128
#: batches has about as long a memory.
MEAN_DECAY = 0.97
#: The same for the average of the weights. With a few hundred steps, AdaMatch's 0.999 would keep
#: the first weights.
WEIGHT_DECAY = 0.97
#: The share of a target's words that the strong view leaves out.
DROPPED_WORDS = 0.15
#: Examples that are read at once.
AT_ONCE = 12


@dataclass(frozen=True)
class Target:
    """An utterance of a dialogue."""

    dialogue: Dialogue
    index: int

    @property
    def turn(self) -> Utterance:
        """The utterance."""
        return self.dialogue.turns[self.index]


def aligned(predictions: Floats, mean: Floats, prior: Floats) -> Floats:
    """Return predictions aligned to the label prior. Pure.

    Parameters
    ----------
    predictions
        Shape (N, E): the probability of each label.
    mean
        Shape (E,): the running mean of the predictions.
    prior
        Shape (E,): the label prior.

    Returns
    -------
    numpy.ndarray
        Shape (N, E). Each row has the sum 1.

    Notes
    -----
    Section 3.2 of ReMixMatch (Berthelot et al. 2020, arXiv 1911.09785).

    Examples
    --------
    >>> aligned(np.array([[0.8, 0.2]]), np.array([0.8, 0.2]), np.array([0.5, 0.5])).tolist()
    [[0.5, 0.5]]
    """
    shares = predictions * (prior / np.maximum(mean, 1e-6))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def ramp(step: int, steps: int) -> float:
    """Return the weight of the unlabeled loss: it rises from 0 to 1 in half of the steps. Pure.

    Notes
    -----
    Section 3.4 of AdaMatch.

    Examples
    --------
    >>> [round(ramp(step, 100), 2) for step in (0, 25, 50, 99)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return 0.5 - 0.5 * math.cos(min(math.pi, 2.0 * math.pi * step / steps))


def weakened(text: str, chance: random.Random) -> str:
    """Return a text without some of its words, at least one of which stays. Pure but for `chance`.

    Parameters
    ----------
    text
        The text.
    chance
        Draws the words.
    """
    words = text.split()
    kept = [word for word in words if chance.random() >= DROPPED_WORDS]
    return " ".join(kept or words[:1]) or text


class _Prompts:
    """Makes the recognizer's prompts and answers."""

    def __init__(self, spec: EvolutionSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        self._spec = spec
        self._tokenizer = tokenizer
        self._prompts: PromptSet = prompt_set_of(spec.model)
        answers = self._prompts.label_answers(tokenizer, spec.dataset.labels)
        self.answers = [tuple(answer) for answer in answers]
        if len({answer[0] for answer in self.answers}) < len(self.answers):
            raise StudyError("adamatch rows require labels whose first tokens differ")

    def ids(self, target: Target, view: View, text: str | None = None) -> tuple[int, ...]:
        """Return the prompt of a target in a view, with another text in its place."""
        turns, index = target.dialogue.turns, target.index
        return tuple(
            self._prompts.recognizer_ids(
                self._tokenizer,
                turns[max(0, index - view.past) : index],
                target.turn.speaker,
                target.turn.text if text is None else text,
                self._spec.dataset.labels,
                turns[index + 1 : index + 1 + view.future],
                max_tokens=self._spec.model.max_prompt_tokens,
            )
        )

    def strong(self, target: Target, chance: random.Random) -> tuple[int, ...]:
        """Return the prompt of a strong view: fewer words, and often no other turn."""
        past = self._spec.dataset.context.past if chance.random() < 0.5 else 0
        return self.ids(target, View(past=past), weakened(target.turn.text, chance))


def train(job: TrainingJob) -> list[Checkpoint]:
    """Train the policy and return the checkpoints that were stored.

    Parameters
    ----------
    job
        The configuration of the training.
    """
    import torch

    from selfemo_jobs.models.fetch import load_model, load_tokenizer
    from selfemo_jobs.models.trained_layers import train_last_layers
    from selfemo_jobs.stages.warmstart.supervised_trainer import freeze_embeddings

    torch.manual_seed(job.spec.seed)
    tokenizer = load_tokenizer(job.policy)
    model = load_model(job.policy, torch.float32)
    freeze_embeddings(model)
    if job.spec.training.train_layers > 0:
        train_last_layers(model, job.spec.training.train_layers)
    labeled, unlabeled = _targets(job)
    prompts = _Prompts(job.spec, tokenizer)
    return _Training(job, model, prompts, labeled, unlabeled, tokenizer.pad_token_id).run()


def _targets(job: TrainingJob) -> tuple[list[Target], list[Target]]:
    """Return the labeled and the unlabeled utterances. Raises StudyError."""
    labeled: list[Target] = []
    unlabeled: list[Target] = []
    for source in read_sources(job.spec, local_path, job.output):
        for dialogue in source.dialogues:
            targets = [Target(dialogue, index) for index in range(len(dialogue.turns))]
            if source.use_labels:
                labeled += [target for target in targets if target.turn.labels]
            else:
                unlabeled += targets
    if not labeled or not unlabeled:
        raise StudyError("adamatch rows require a labeled source and one without labels")
    return labeled, unlabeled


def _endless(targets: Sequence[Target], chance: random.Random) -> Iterator[Target]:
    """Yield targets without end, each pass in a new order."""
    order = list(range(len(targets)))
    while True:
        chance.shuffle(order)
        yield from (targets[i] for i in order)


class _Training:
    """The training, step by step."""

    def __init__(
        self,
        job: TrainingJob,
        model: PreTrainedModel,
        prompts: _Prompts,
        labeled: Sequence[Target],
        unlabeled: Sequence[Target],
        pad: int,
    ) -> None:
        import torch

        from selfemo_jobs.stages.warmstart import supervised_trainer
        from selfemo_jobs.stages.warmstart.weights import precision_of

        spec = job.spec
        labels, prior = spec.dataset.labels, spec.dataset.label_prior
        if prior is None:
            raise StudyError("adamatch rows require `dataset.labelPrior`")
        self._job, self._model, self._prompts, self._pad = job, model, prompts, pad
        self._prior = np.array([prior.get(label, 0.0) for label in labels])
        self._labels = {label: i for i, label in enumerate(labels)}
        self._mean = self._prior.copy()
        self._chance = random.Random(spec.seed)
        self._labeled = _endless(labeled, self._chance)
        self._unlabeled = _endless(unlabeled, self._chance)
        context = spec.dataset.context
        self._view = View(past=context.past, future=context.future)
        views = [self._view, *spec.reward.judge.views]
        self._weak = max(views, key=lambda view: view.past + view.future)
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._average = [p.detach().clone() for p in self._trained]
        rate = spec.training.optimizer.learning_rate
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=rate, weight_decay=supervised_trainer.WEIGHT_DECAY
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: supervised_trainer.linear_rate(step, job.steps)
        )
        self._precision = precision_of(spec)

    def run(self) -> list[Checkpoint]:
        """Train, and store the averaged weights after the steps that the job names."""
        clock, checkpoints = WorkClock(), []
        for step in range(self._job.steps):
            figures = self._step(step)
            if (step + 1) % 10 == 0:
                log.info("step %d of %d: %s", step + 1, self._job.steps, figures)
            if step + 1 in self._job.keep:
                examples = (step + 1) * LABELED_EXAMPLES * (1 + RATIO)
                checkpoints.append(
                    Checkpoint(step=step + 1, examples=examples, seconds=round(clock.seconds, 3))
                )
                began = time.monotonic()
                self._store(checkpoint_folder(self._job.output, step + 1))
                clock.exclude(time.monotonic() - began)
        return checkpoints

    def _step(self, step: int) -> dict[str, float]:
        """Train on the next batch; return figures for the log."""
        import torch

        labeled = [next(self._labeled) for _ in range(LABELED_EXAMPLES)]
        unlabeled = [next(self._unlabeled) for _ in range(LABELED_EXAMPLES * RATIO)]
        self._model.eval()
        weak = [self._prompts.ids(target, self._weak) for target in (*labeled, *unlabeled)]
        predictions = self._predict(weak)
        threshold = RELATIVE_THRESHOLD * float(predictions[:LABELED_EXAMPLES].max(axis=1).mean())
        shares = aligned(predictions[LABELED_EXAMPLES:], self._mean, self._prior)
        mean = predictions[LABELED_EXAMPLES:].mean(axis=0)
        self._mean = MEAN_DECAY * self._mean + (1.0 - MEAN_DECAY) * mean
        self._model.train()
        gold = [
            Example(self._prompts.ids(t, self._view), self._answer(t.turn.labels[0]))
            for t in labeled
        ]
        pseudo = [
            Example(self._prompts.strong(t, self._chance), self._prompts.answers[int(row.argmax())])
            for t, row in zip(unlabeled, shares, strict=True)
            if row.max() >= threshold
        ]
        loss = self._backward(gold, 1.0 / len(gold))
        unlabeled_loss = self._backward(pseudo, ramp(step, self._job.steps) / len(unlabeled))
        from selfemo_jobs.stages.warmstart.supervised_trainer import MAX_GRADIENT_NORM

        torch.nn.utils.clip_grad_norm_(self._trained, MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for average, weight in zip(self._average, self._trained, strict=True):
                average.lerp_(weight, 1.0 - WEIGHT_DECAY)
        return {
            "loss": round(loss, 4),
            "unlabeled": round(unlabeled_loss, 4),
            "kept": round(len(pseudo) / len(unlabeled), 3),
            "threshold": round(threshold, 3),
        }

    def _answer(self, label: str) -> tuple[int, ...]:
        return self._prompts.answers[self._labels[label]]

    def _predict(self, prompts: Sequence[tuple[int, ...]]) -> Floats:
        """Return the probability of each label after each prompt; shape (prompts, labels)."""
        import torch

        tokens = [answer[0] for answer in self._prompts.answers]
        result = np.empty((len(prompts), len(tokens)))
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), AT_ONCE):
            chosen = order[start : start + AT_ONCE]
            longest = max(len(prompts[i]) for i in chosen)
            ids = torch.full((len(chosen), longest), self._pad)
            for row, i in enumerate(chosen):
                ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            lengths = torch.tensor([len(prompts[i]) for i in chosen])
            mask = (torch.arange(longest) >= longest - lengths[:, None]).long()
            with torch.no_grad(), self._precision():
                logits = self._model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                    use_cache=False,
                    logits_to_keep=1,
                ).logits[:, -1, tokens]
            result[chosen] = logits.double().softmax(-1).numpy()
        return result

    def _backward(self, examples: Sequence[Example], weight: float) -> float:
        """Add the gradients of examples, each with a weight; return their weighted loss."""
        import torch

        from selfemo_jobs.stages.warmstart.supervised_trainer import example_losses

        total = 0.0
        ordered = sorted(examples, key=lambda example: len(example.text))
        for start in range(0, len(ordered), AT_ONCE):
            with self._precision():
                losses: Tensor = example_losses(
                    self._model, ordered[start : start + AT_ONCE], self._pad
                )
                loss = losses.sum() * weight
            torch.autograd.backward(loss)
            total += loss.item()
        return total

    def _store(self, folder: Path) -> None:
        """Write the model with the average of its weights."""
        import torch

        from selfemo_jobs.models.model_export import write_model

        folder.parent.mkdir(exist_ok=True)
        with torch.no_grad():
            current = [weight.detach().clone() for weight in self._trained]
            for weight, average in zip(self._trained, self._average, strict=True):
                weight.copy_(average)
            write_model(self._model, self._model.state_dict(), self._job.policy, folder)
            for weight, value in zip(self._trained, current, strict=True):
                weight.copy_(value)


if __name__ == "__main__":
    sys.exit(run_worker(train))
