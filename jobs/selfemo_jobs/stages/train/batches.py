"""The fixed order in which groups are trained on. Pure.

The loss of a step is a sum over its tokens, divided by their number. How the completions of a step
are distributed over processes and micro-batches therefore changes nothing but the speed.
Completions of one prompt stay together, so that the prompt is read once. Prompts of similar length
share a micro-batch, which needs little padding.
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selfemo_jobs.errors import BadInput

#: Stands for a row without tokens in a micro-batch that is not full. It has no part in the loss.
PADDING = -1

#: The rows of a step: for each process, its micro-batches; for each micro-batch, its rows.
MicroBatches = tuple[tuple[tuple[int, ...], ...], ...]


@dataclass(frozen=True)
class BatchShape:
    """The sizes of a step."""

    batch_size: int
    """Number of completions in a step, over all processes."""
    micro_batch_size: int
    """Number of completions in one micro-batch: one forward pass of one process."""
    processes: int
    """Number of processes."""

    @property
    def gradient_accumulation_steps(self) -> int:
        """Number of micro-batches of each process in a step."""
        return self.batch_size // (self.micro_batch_size * self.processes)


@dataclass(frozen=True)
class TrainingStep:
    """One optimizer step."""

    epoch: int
    """Number of the epoch, from 0."""
    micro_batches: MicroBatches
    """Row numbers by process and micro-batch. Each micro-batch has ``micro_batch_size`` entries,
    some of which may be :data:`PADDING`."""
    sampled_tokens: int
    """Number of tokens of the sampled completions over all processes, by which the loss of
    SELF-GRPO is divided."""
    imitated_tokens: int = 0
    """Number of tokens of the imitated answers over all processes, by which the imitation loss is
    divided."""


def plan_steps(
    groups: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int] | npt.NDArray[np.int64],
    completion_lengths: Sequence[int] | npt.NDArray[np.int64],
    shape: BatchShape,
    *,
    epochs: int,
    seed: int,
    max_steps: int | None = None,
    imitated: Container[int] = (),
) -> list[TrainingStep]:
    """Return the steps of a training. Equal arguments give equal steps.

    Each epoch visits all groups in a random order. A step takes whole groups as long as they fit.
    The last step of an epoch may have fewer completions: every kept group is used, and the loss is
    over the tokens that are present.

    Parameters
    ----------
    groups
        Row numbers of each group.
    prompt_lengths, completion_lengths
        Numbers of tokens of the prompt and of the completion of each row.
    shape
        The sizes of a step.
    epochs
        How often each group is visited.
    seed
        The seed of the order.
    max_steps
        Largest number of steps; None for all.
    imitated
        Rows that are answers to imitate. Their tokens are counted separately.

    Returns
    -------
    list of TrainingStep
        The steps in order.

    Raises
    ------
    BadInput
        If a group is larger than a step.

    Examples
    --------
    >>> shape = BatchShape(batch_size=4, micro_batch_size=2, processes=1)
    >>> (step,) = plan_steps([[0, 1]], [9, 9], [3, 5], shape, epochs=1, seed=0)
    >>> step.micro_batches  # of the only process
    (((0, 1), (-1, -1)),)
    >>> step.sampled_tokens
    8
    """
    largest = max(map(len, groups), default=0)
    if largest > shape.batch_size:
        raise BadInput(
            f"a group has {largest} completions: `training.batchSize` ({shape.batch_size}) must "
            "hold a whole group"
        )
    steps: list[TrainingStep] = []
    for epoch in range(epochs):
        order = list(groups)
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for groups_of_step in _fill_steps(order, shape.batch_size):
            if max_steps is not None and len(steps) == max_steps:
                return steps
            by_length = sorted(groups_of_step, key=lambda g: (-prompt_lengths[g[0]], g[0]))
            rows = [row for group in by_length for row in group]
            sampled = sum(completion_lengths[row] for row in rows if row not in imitated)
            imitation = sum(completion_lengths[row] for row in rows if row in imitated)
            micro_batches = _distribute(rows, shape)
            steps.append(TrainingStep(epoch, micro_batches, int(sampled), int(imitation)))
    return steps


def _fill_steps(groups: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[Sequence[int]]]:
    """Yield the groups of each step: whole groups as long as they fit."""
    step: list[Sequence[int]] = []
    for group in groups:
        if sum(map(len, step)) + len(group) > batch_size:
            yield step
            step = []
        step.append(group)
    if step:
        yield step


def _distribute(rows: Sequence[int], shape: BatchShape) -> MicroBatches:
    """Cut the rows into micro-batches and give these to the processes in turn.

    Neighboring micro-batches have prompts of similar length, so processes wait little for each
    other.
    """
    size = shape.micro_batch_size
    padded = [*rows, *[PADDING] * (shape.batch_size - len(rows))]
    micro_batches = [tuple(padded[start : start + size]) for start in range(0, len(padded), size)]
    return tuple(
        tuple(micro_batches[process :: shape.processes]) for process in range(shape.processes)
    )
