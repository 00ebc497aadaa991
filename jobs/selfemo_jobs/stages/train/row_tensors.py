"""The recorded rows of a micro-batch as tensors: their texts, and the values of their tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from trl.trainer.utils import pad

from selfemo_jobs.acceleration.padded_rows import PaddedRows, pad_rows
from selfemo_jobs.acceleration.prefix_packing import PackedBatch, pack
from selfemo_jobs.stages.train.batches import PADDING
from selfemo_jobs.stages.train.rollout_data import RolloutData


class RowTensors:
    """Makes the tensors of micro-batches.

    Parameters
    ----------
    rollouts
        The rows of the training.
    filler
        The id of the token that fills rows up.
    device
        The device of the tensors.
    can_pack
        Whether the model can read the completions of a prompt behind one copy of it.
    """

    def __init__(
        self, rollouts: RolloutData, filler: int, device: torch.device, *, can_pack: bool
    ) -> None:
        self._rollouts = rollouts
        self._filler = filler
        self._device = device
        self._make = pack if can_pack else pad_rows

    def texts(self, rows: Sequence[int]) -> tuple[dict[str, Tensor], PackedBatch | PaddedRows]:
        """Return the prompts (padded left) and completions (padded right) of a micro-batch.

        Parameters
        ----------
        rows
            The numbers of the rows. Those of :data:`PADDING` have no tokens.

        Returns
        -------
        tensors : dict
            ``prompt_ids``, ``prompt_mask``, ``completion_ids`` and ``completion_mask``, as TRL
            expects them; shape (rows, tokens of the longest one), at least one column.
        batch : PackedBatch or PaddedRows
            The form in which the model reads the same rows.
        """
        filler = [self._filler]
        prompts = [filler if r == PADDING else self._rollouts.prompts[r].tolist() for r in rows]
        completions = [[] if r == PADDING else self._rollouts.completions[r].tolist() for r in rows]
        tensors = {}
        for name, side, texts in (
            ("prompt", "left", prompts),
            ("completion", "right", completions),
        ):
            # the filler gives at least one column: TRL slices `[:, -columns:]`
            ids = [torch.tensor(text, dtype=torch.long) for text in [*texts, filler]]
            mask = [torch.ones_like(text) for text in ids]
            padded = pad(ids, padding_value=self._filler, padding_side=side)[:-1]
            tensors[f"{name}_ids"] = padded.to(self._device)
            tensors[f"{name}_mask"] = pad(mask, padding_side=side)[:-1].to(self._device)
        width = tensors["completion_ids"].size(1)
        batch = self._make(prompts, completions, width, self._filler)
        return tensors, batch.to(self._device)

    def values(self, flat: npt.NDArray[np.float32], rows: Sequence[int], width: int) -> Tensor:
        """Return the values of some rows' tokens; shape (rows, width), 0 after the end of a row.

        Parameters
        ----------
        flat
            The values of the completion tokens of all rows in order; shape (tokens,).
        rows
            The numbers of the rows.
        width
            The number of columns.
        """
        values = np.zeros((len(rows), width), np.float32)
        offsets = self._rollouts.completions.offsets
        for index, row in enumerate(rows):
            if row != PADDING:
                of_row = flat[offsets[row] : offsets[row + 1]]
                values[index, : len(of_row)] = of_row
        return torch.from_numpy(values).to(self._device)

    def write(self, flat: Tensor, rows: Sequence[int], values: Tensor) -> None:
        """Write the values of some rows' tokens to their places in a flat tensor.

        Parameters
        ----------
        flat
            The values of the completion tokens of all rows in order; shape (tokens,). It is
            changed.
        rows
            The numbers of the rows.
        values
            Their values; shape (rows, tokens of the longest one).
        """
        offsets = self._rollouts.completions.offsets
        for index, row in enumerate(rows):
            if row != PADDING:
                start, end = int(offsets[row]), int(offsets[row + 1])
                flat[start:end] = values[index, : end - start]
