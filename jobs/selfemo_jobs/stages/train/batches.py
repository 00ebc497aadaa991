"""The fixed order in which groups are trained on. Pure.

The loss of a step is a sum over its tokens, divided by their number. How the completions of a step
are distributed over processes and micro-batches therefore changes nothing but the speed.
Completions of one prompt stay together, so that the prompt is read once. Prompts of similar length
share a micro-batch, which needs little padding.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

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
    response_tokens: int = 0
    """Number of tokens of the imitated responses over all processes, by which their loss is
    divided."""


class StepPlan(Sequence[TrainingStep]):
    """The steps of a training; :func:`plan_steps` makes it.

    A step is made when it is taken from the plan. Memory holds the order of the groups in each
    epoch, eight bytes for each, whatever the number of their rows.

    Parameters
    ----------
    groups, prompt_lengths, completion_lengths, shape, imitated, responses
        See :func:`plan_steps`.
    order
        The number of each group, epoch after epoch, in the order in which they are visited.
    starts
        Where the groups of each step begin in ``order``, and where the last one ends.
    epoch_steps
        The first step of each epoch.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        prompt_lengths: Sequence[int] | npt.NDArray[np.int64],
        completion_lengths: Sequence[int] | npt.NDArray[np.int64],
        shape: BatchShape,
        *,
        order: Sequence[int],
        starts: Sequence[int],
        epoch_steps: Sequence[int],
        imitated: Container[int],
        responses: Container[int],
    ) -> None:
        self._groups = groups
        self._prompt_lengths = prompt_lengths
        self._completion_lengths = completion_lengths
        self._shape = shape
        self._order = order
        self._starts = starts
        self._epoch_steps = epoch_steps
        self._imitated = imitated
        self._responses = responses

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> TrainingStep: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainingStep]: ...
    def __getitem__(self, index: int | slice) -> TrainingStep | list[TrainingStep]:
        """Return one step, or some of them."""
        numbers = range(len(self))[index]
        return self._step(numbers) if isinstance(numbers, int) else list(map(self._step, numbers))

    def _step(self, number: int) -> TrainingStep:
        lengths = self._completion_lengths
        visited = self._order[self._starts[number] : self._starts[number + 1]]
        groups = [self._groups[group] for group in visited]
        groups.sort(key=lambda g: (-self._prompt_lengths[g[0]], g[0]))
        rows = [row for group in groups for row in group]
        sampled = sum(lengths[row] for row in rows if row not in self._imitated)
        imitation = sum(lengths[row] for row in rows if row in self._imitated)
        responses = sum(lengths[row] for row in rows if row in self._responses)
        return TrainingStep(
            bisect_right(self._epoch_steps, number) - 1,
            _distribute(rows, self._shape),
            int(sampled),
            int(imitation - responses),
            int(responses),
        )


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
    responses: Container[int] = (),
) -> StepPlan:
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
        Rows that are imitated. Their tokens are counted separately.
    responses
        Those of them that are the responder's, and not answers.

    Returns
    -------
    StepPlan
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
    order, starts, epoch_steps = array("q"), array("q", [0]), []
    for epoch in range(epochs):
        if max_steps is not None and len(starts) > max_steps:
            break
        epoch_steps.append(len(starts) - 1)
        of_epoch = array("q", range(len(groups)))
        random.Random(f"{seed}/{epoch}").shuffle(of_epoch)
        ends = _fill_steps((len(groups[number]) for number in of_epoch), shape.batch_size)
        starts.extend(len(order) + end for end in ends)
        order.extend(of_epoch)
    if max_steps is not None:
        del starts[max_steps + 1 :]
        del order[starts[-1] :]
    return StepPlan(
        groups,
        prompt_lengths,
        completion_lengths,
        shape,
        order=order,
        starts=starts,
        epoch_steps=epoch_steps,
        imitated=imitated,
        responses=responses,
    )


def _fill_steps(sizes: Iterable[int], batch_size: int) -> Iterator[int]:
    """Yield the number of groups up to the end of each step: whole groups as long as they fit."""
    filled = count = 0
    for size in sizes:
        if filled + size > batch_size:
            yield count
            filled = 0
        filled += size
        count += 1
    if filled:
        yield count


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
