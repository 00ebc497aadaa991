"""The fixed order in which recorded groups are trained on. Pure.

The loss of a step is a sum over its tokens divided by their number, so how a step's completions are
dealt to processes and forward passes changes nothing but the speed: completions of one prompt stay
together (their prompt is read once) and prompts of like length share a pass (little padding).
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from selfemo_jobs.errors import BadInput

#: Fills a pass that has no completion left: it has no token and so no part in the loss.
PADDING = -1


@dataclass(frozen=True)
class Shape:
    """How a step is dealt out."""

    batch_size: int
    """Completions in a step, over all processes."""
    micro_batch_size: int
    """Completions in one forward pass of one process."""
    processes: int

    @property
    def passes(self) -> int:
        """Forward passes of each process in a step (gradient accumulation)."""
        return self.batch_size // (self.micro_batch_size * self.processes)


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    epoch: int
    passes: tuple[tuple[tuple[int, ...], ...], ...]
    """Rows by process, then by pass; each pass has ``micro_batch_size`` rows or padding."""
    tokens: int
    """Sampled completion tokens over all processes: what SELF-GRPO's loss is divided by."""
    answers: int = 0
    """Tokens of imitated answers over all processes: what the imitation's loss is divided by."""


def plan_steps(
    groups: Sequence[Sequence[int]],
    prompt_lengths: Sequence[int],
    completion_lengths: Sequence[int],
    shape: Shape,
    *,
    epochs: int,
    seed: int,
    max_steps: int | None = None,
    imitated: Container[int] = (),
) -> list[Step]:
    """Return the steps of a training, the same for the same arguments.

    Each epoch goes through all groups in an order of its own. A step takes whole groups as long as
    they fit. The last step of an epoch may have fewer completions: nothing that was kept is
    dropped, and the loss is over the tokens that are there.

    Parameters
    ----------
    groups
        Rows of each group.
    prompt_lengths, completion_lengths
        Tokens of each row.
    shape
        How steps are dealt out.
    epochs
        Passes over all groups.
    seed
        Of the order.
    max_steps
        Stop after so many steps.
    imitated
        Rows that are answers to imitate: their tokens are counted apart.

    Raises
    ------
    BadInput
        If a group is larger than a step.
    """
    largest = max(map(len, groups), default=0)
    if largest > shape.batch_size:
        raise BadInput(
            f"a group has {largest} completions: `training.batchSize` ({shape.batch_size}) must "
            "hold a whole group"
        )
    steps: list[Step] = []
    for epoch in range(epochs):
        order = list(groups)
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for taken in _whole_groups(order, shape.batch_size):
            if max_steps is not None and len(steps) == max_steps:
                return steps
            by_length = sorted(taken, key=lambda g: (-prompt_lengths[g[0]], g[0]))
            rows = [row for group in by_length for row in group]
            tokens = sum(completion_lengths[row] for row in rows if row not in imitated)
            answers = sum(completion_lengths[row] for row in rows if row in imitated)
            steps.append(Step(epoch, _deal(rows, shape), int(tokens), int(answers)))
    return steps


def _whole_groups(
    groups: Sequence[Sequence[int]], batch_size: int
) -> Iterator[list[Sequence[int]]]:
    taken: list[Sequence[int]] = []
    for group in groups:
        if sum(map(len, taken)) + len(group) > batch_size:
            yield taken
            taken = []
        taken.append(group)
    if taken:
        yield taken


def _deal(rows: Sequence[int], shape: Shape) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Cut the rows into passes and deal those to the processes in turn.

    Neighboring passes have prompts of like length, so processes wait little for each other.
    """
    size = shape.micro_batch_size
    filled = [*rows, *[PADDING] * (shape.batch_size - len(rows))]
    cut = [tuple(filled[start : start + size]) for start in range(0, len(filled), size)]
    return tuple(tuple(cut[process :: shape.processes]) for process in range(shape.processes))
