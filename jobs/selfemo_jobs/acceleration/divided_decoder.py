"""A decoder that runs its layers in two parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import nn
from transformers import PreTrainedModel


class DividedDecoder:
    """A decoder that runs its layers in two parts: those below the trained ones, and the trained.

    Parameters
    ----------
    model
        A decoder of the plain build.
    trained
        The number of last layers that are trained. It must be less than the number of layers.
    """

    def __init__(self, model: PreTrainedModel, trained: int) -> None:
        self._decoder = model.get_decoder()
        self._all = self._decoder.layers
        self._trained = trained

    @property
    def lower_layers(self) -> nn.ModuleList:
        """The layers below the trained ones."""
        below: nn.ModuleList = self._all[: -self._trained]
        return below

    def lower_only(self) -> AbstractContextManager[None]:
        """Return a context in which the decoder has the embedding and the lower layers alone."""
        return self._layers(self.lower_layers, nn.Identity())

    def trained_only(self) -> AbstractContextManager[None]:
        """Return a context in which the model has only its trained layers, final norm and head."""
        return self._layers(self._all[-self._trained :], self._decoder.norm)

    @contextmanager
    def _layers(self, layers: nn.ModuleList, norm: nn.Module) -> Iterator[None]:
        before = self._decoder.norm
        self._decoder.layers, self._decoder.norm = layers, norm
        try:
            yield
        finally:
            self._decoder.layers, self._decoder.norm = self._all, before
