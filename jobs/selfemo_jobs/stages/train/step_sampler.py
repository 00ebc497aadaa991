"""The order in which a training takes its rows: that of its steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

from selfemo_jobs.stages.train.batches import PADDING, TrainingStep


class StepSampler(Sampler[int]):
    """Yields dataset indices such that each process gets its share of each step.

    Before each micro-batch the trainer takes the share of a whole step from the sampler, and uses
    one micro-batch of it.

    Parameters
    ----------
    steps
        The steps of the training.
    padding
        Dataset index of the row without tokens, which fills a micro-batch that is not full.
    """

    def __init__(self, steps: Sequence[TrainingStep], padding: int) -> None:
        self._steps = steps
        self._padding = padding

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of all steps."""
        for step in self._steps:
            for _ in step.micro_batches[0]:
                for share in step.micro_batches:
                    yield from (self._padding if r == PADDING else r for b in share for r in b)

    def __len__(self) -> int:
        """Return the number of indices."""
        if not self._steps:
            return 0
        batches = self._steps[0].micro_batches  # all steps have as many
        return len(self._steps) * len(batches[0]) * sum(len(b) for share in batches for b in share)
