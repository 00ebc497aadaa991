"""Supervised training of both roles, step by step. The loss counts the tokens of completions only.

The stage trains with it until the selection dataset stops rising. ``selfemo model warm-start``
trains a fixed number of steps (:func:`train_steps`).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from selfemo_api.metrics import PROGRESS_MESSAGE, ProgressField
from selfemo_api.spec import Precision
from selfemo_jobs.acceleration.frozen_states import FrozenStates, can_keep_states
from selfemo_jobs.acceleration.last_layer import last_mlp_at
from selfemo_jobs.acceleration.rounded_products import rounding_context
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.trained_layers import train_last_layers
from selfemo_jobs.stages.warmstart.examples import Example
from selfemo_jobs.stages.warmstart.options import TrainingOptions, WarmStartOptions

log = logging.getLogger(__name__)

#: The target of tokens that have no loss, as PyTorch's cross-entropy has it.
IGNORED = -100
#: Examples that are read at once. Few have similar lengths; more make products faster.
AT_ONCE = 8
#: The share of the steps in which the learning rate rises from 0.
WARMUP = 0.1
#: Gradients with a larger norm are scaled down to it.
MAX_GRADIENT_NORM = 1.0
WEIGHT_DECAY = 0.01


class SupervisedTrainer:
    """A training that makes one step at a time, and whose state can be stored.

    The same model, examples, options and seed give the same weights on the same CPU.

    Parameters
    ----------
    model
        The model, on its device. Its weights that require gradients are trained in place. Those in
        bfloat16 have a copy in float32, which the optimizer updates: small changes would be lost
        in bfloat16.
    recognizer
        The recognizer's examples, at least one.
    responder
        The responder's examples. Without any, all examples of a batch are the recognizer's.
    options
        The batch size, the learning rate and the responder's share.
    pad
        The token id of padding.
    seed
        The seed of the order of the examples, and of dropout.
    rate
        Returns the factor of the learning rate at a step, which counts from 0.
    at_once
        The number of examples that are read at once.
    precision
        Returns the context of the forward passes.
    trained_layers
        The number of last layers that are trained, if no others are. The output of the layers below
        is then kept where it fits. None: every layer reads every batch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        recognizer: Sequence[Example],
        responder: Sequence[Example],
        options: TrainingOptions,
        *,
        pad: int,
        seed: int,
        rate: Callable[[int], float],
        at_once: int = AT_ONCE,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        trained_layers: int | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self._model = model
        self._options = options
        self._pad = pad
        self._rate = rate
        self._at_once = at_once
        self._precision = precision
        self._batches = _batches(recognizer, responder, options, random.Random(seed))
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._weights = {
            name: p if p.dtype is torch.float32 else p.detach().float().requires_grad_()
            for name, p in self._trained.items()
        }
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY
        )
        self._states: FrozenStates | None = None
        texts = [example.text for example in (*recognizer, *responder)]
        if trained_layers is not None and can_keep_states(model, texts):
            self._states = FrozenStates(model, trained_layers, texts, precision)
        self.step = 0
        """The number of steps that were made."""

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self._options.learning_rate * self._rate(self.step)

    def make_step(self) -> float:
        """Train on the next batch; return its loss, the mean over examples of their mean losses."""
        self._model.train()
        loss = self._backward(next(self._batches))
        for name, weight in self._weights.items():
            trained = self._trained[name]
            if weight is not trained and trained.grad is not None:
                weight.grad, trained.grad = trained.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self._weights.values(), MAX_GRADIENT_NORM)
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._copy_to_model()
        self._model.eval()
        self.step += 1
        return loss

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the trained weights by name, in float32 on the CPU."""
        return {
            name: weight.detach().to("cpu", copy=True) for name, weight in self._weights.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Return all that the next steps follow from, as tensors by name."""
        state = {f"weight/{name}": weight for name, weight in self.weights().items()}
        state["step"] = torch.tensor(self.step)
        state["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            state["random/cuda"] = torch.cuda.get_rng_state()
        for name, weight in self._weights.items():
            for key, value in self._optimizer.state.get(weight, {}).items():
                state[f"{key}/{name}"] = value.detach().to("cpu", copy=True)
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from a state that :meth:`state` returned, in a new trainer.

        Parameters
        ----------
        state
            The tensors by name.
        """
        if self.step:
            raise RuntimeError("only a new trainer continues from a state")
        self.step = int(state["step"])
        for name, weight in self._weights.items():
            with torch.no_grad():
                weight.copy_(state[f"weight/{name}"])
            if f"step/{name}" in state:  # a weight that has had no gradient has no state
                self._optimizer.state[weight] = {
                    "step": state[f"step/{name}"].clone(),
                    "exp_avg": state[f"exp_avg/{name}"].to(weight.device, copy=True),
                    "exp_avg_sq": state[f"exp_avg_sq/{name}"].to(weight.device, copy=True),
                }
        self._copy_to_model()
        next(islice(self._batches, self.step, self.step), None)
        torch.set_rng_state(state["random/cpu"])
        if "random/cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random/cuda"])

    def _copy_to_model(self) -> None:
        """Round the weights that the optimizer updated to those that the model reads."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                if weight is not self._trained[name]:
                    self._trained[name].copy_(weight)

    def _backward(self, batch: Sequence[Sequence[Example]]) -> float:
        """Add the gradients of a batch; return its loss.

        Each example counts the same. Otherwise a reply of thirty words would outweigh ten answers
        of one word. The model reads the roles one after the other, sorted by length, to save
        padding.

        Parameters
        ----------
        batch
            The examples of each role.
        """
        examples = sum(len(role) for role in batch)
        total = 0.0
        for role in batch:
            by_length = sorted(role, key=lambda e: len(e.text))
            for start in range(0, len(role), self._at_once):
                part = by_length[start : start + self._at_once]
                with self._precision():
                    losses = example_losses(self._model, part, self._pad, self._states)
                    loss = losses.sum() / examples
                torch.autograd.backward(loss)
                total += loss.item()
        return total


def train_steps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recognizer: Sequence[Example],
    responder: Sequence[Example],
    options: WarmStartOptions,
) -> float:
    """Train a model in place for a fixed number of steps; the learning rate falls to zero.

    Parameters
    ----------
    model
        The model, in float32 on the CPU.
    tokenizer
        Its tokenizer.
    recognizer, responder
        The examples of both roles, see :class:`SupervisedTrainer`.
    options
        How the weights are trained.

    Returns
    -------
    float
        The mean loss of the last tenth of the steps.

    Raises
    ------
    BadInput
        If there are no examples, or the model cannot be trained as the options say.
    """
    if not recognizer:
        raise BadInput("the source has no labeled utterance: nothing can be learned from it")
    if options.freeze_embeddings:
        freeze_embeddings(model)
    if options.train_layers is not None:
        train_last_layers(model, options.train_layers, "--train-layers")
    trainer = SupervisedTrainer(
        model,
        recognizer,
        responder,
        options,
        pad=tokenizer.pad_token_id,
        seed=options.seed,
        rate=lambda step: linear_rate(step, options.steps),
        precision=_precision_of(model, options),
        trained_layers=options.train_layers,
    )
    losses: list[float] = []
    while trainer.step < options.steps:
        losses.append(trainer.make_step())
        if trainer.step % 10 == 0 or trainer.step == options.steps:
            fields = {
                ProgressField.DONE: trainer.step,
                ProgressField.TOTAL: options.steps,
                ProgressField.LOSS: round(losses[-1], 4),
            }
            log.info(PROGRESS_MESSAGE, extra={"fields": fields})
    model.requires_grad_(True)
    last = losses[-max(1, options.steps // 10) :]
    return sum(last) / len(last)


def _precision_of(
    model: PreTrainedModel, options: TrainingOptions
) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that makes the context of the forward passes."""
    on_cpu = model.device.type == "cpu"
    return rounding_context(rounded=on_cpu and options.precision is not Precision.FLOAT32)


def freeze_embeddings(model: PreTrainedModel) -> None:
    """Leave the embeddings and the output head of a model as they are in a training."""
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module is not None:
            module.requires_grad_(False)


def linear_rate(step: int, steps: int) -> float:
    """Return the factor of the learning rate: it rises linearly, then falls to zero.

    Parameters
    ----------
    step
        The number of the step, from 0.
    steps
        The number of all steps.

    Examples
    --------
    >>> [round(linear_rate(step, 20), 2) for step in (0, 1, 10, 19)]
    [0.5, 1.0, 0.53, 0.05]
    """
    rise = max(1, int(steps * WARMUP))
    return min((step + 1) / rise, max(0.0, (steps - step) / (steps - rise + 1)))


def _batches(
    recognizer: Sequence[Example],
    responder: Sequence[Example],
    options: TrainingOptions,
    chance: random.Random,
) -> Iterator[tuple[list[Example], list[Example]]]:
    """Yield batches without end, by role. Each pass over the examples has a new order."""
    recognizer_examples = _endless(recognizer, chance)
    responder_examples = _endless(responder, chance) if responder else recognizer_examples
    replies = round(options.batch_size * options.responder_share)
    while True:
        yield (
            [next(recognizer_examples) for _ in range(options.batch_size - replies)],
            [next(responder_examples) for _ in range(replies)],
        )


def _endless(examples: Sequence[Example], chance: random.Random) -> Iterator[Example]:
    """Yield examples without end, each pass in a new order."""
    order = list(range(len(examples)))
    while True:
        chance.shuffle(order)
        yield from (examples[i] for i in order)


def example_losses(
    model: PreTrainedModel,
    batch: Sequence[Example],
    pad: int,
    states: FrozenStates | None = None,
) -> Tensor:
    """Return the mean loss of each example's completion tokens, shape (examples,).

    Examples are padded on the left, so all completions end at the last position. Only the last
    logits are computed: with a large vocabulary this saves half of the work.

    Parameters
    ----------
    model
        The model.
    batch
        The examples, at least one.
    pad
        The token id of padding.
    states
        The output of the layers that are not trained, for each example. None: all layers read the
        examples.
    """
    longest = max(len(e.text) for e in batch)
    ids = torch.full((len(batch), longest), pad)
    mask = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORED)
    for row, example in enumerate(batch):
        text = torch.tensor(example.text)
        ids[row, -len(text) :] = text
        mask[row, -len(text) :] = 1
        targets[row, -len(example.completion) :] = text[len(example.prompt) :]
    kept = max(len(e.completion) for e in batch) + 1
    ids, mask, targets = (x.to(model.device) for x in (ids, mask, targets))
    predicting = (targets != IGNORED).roll(-1, dims=1)  # each token predicts the next one
    inputs = {"input_ids": ids}
    layers: AbstractContextManager[None] = nullcontext()
    if states is not None:
        inputs = {"inputs_embeds": states.padded([example.text for example in batch])}
        layers = states.trained_layers_only()
    with layers, last_mlp_at(model, predicting):
        logits = model(
            **inputs,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=kept,
        ).logits[:, :-1]
    completion_targets = targets[:, -kept + 1 :]
    losses = torch.nn.functional.cross_entropy(
        logits.float().transpose(1, 2),
        completion_targets,
        ignore_index=IGNORED,
        reduction="none",
    )
    return losses.sum(1) / (completion_targets != IGNORED).sum(1)
