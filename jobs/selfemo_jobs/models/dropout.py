"""Dropout, which training compares log-probabilities without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def disable_dropout(model: PreTrainedModel) -> None:
    """Set every dropout of a model to zero, in training mode too.

    Training compares the log-probabilities of two passes over the same tokens. Dropout would change
    those of the pass with gradients alone. Modules, and Transformers' attention functions, have
    their rates under many names, all of which contain "drop". They are read again in each pass.

    Parameters
    ----------
    model
        The model, which is changed in place. Its ``config.json`` stays as it is: the trained model
        gets a copy of the file.
    """
    import torch

    configs = {id(config): config for config in (model.config, model.config.get_text_config())}
    for config in configs.values():
        _set_to_zero(vars(config))
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            module.p = 0.0
        _set_to_zero(vars(module))


def _set_to_zero(values: dict[str, Any]) -> None:
    """Set the rates in the attributes of an object, and in maps among them, to zero."""
    for name, value in values.items():
        if isinstance(value, dict) and "_modules" not in name and "config" in name:
            _set_to_zero(value)
        elif "drop" in name and isinstance(value, float):
            values[name] = 0.0
