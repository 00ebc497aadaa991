"""Training of a decoder's last layers alone."""

from __future__ import annotations

from transformers import PreTrainedModel

from selfemo_jobs.errors import BadInput


def train_last_layers(
    model: PreTrainedModel, layers: int, setting: str = "training.trainLayers"
) -> None:
    """Freeze all weights of a model except for the last layers and the final norm.

    The embeddings are frozen, too. No gradient is computed below the first layer that is trained.

    Parameters
    ----------
    model
        A decoder of the usual build, with `layers` and a final `norm`. It is changed in place.
    layers
        The number of last layers to train. It must be less than the number of layers.
    setting
        The setting that the error message names.

    Raises
    ------
    BadInput
        If the model does not have more layers than that, or has another build.
    """
    body = model.base_model
    all_layers = getattr(body, "layers", None)
    if all_layers is None or getattr(body, "norm", None) is None:
        raise BadInput(
            f"`{setting}`: {type(model).__name__} has no `layers` and `norm` to choose from: "
            "omit it"
        )
    if layers >= len(all_layers):
        raise BadInput(
            f"`{setting}` is {layers}, but the model has {len(all_layers)} layers: omit it to "
            "train all"
        )
    model.requires_grad_(False)
    all_layers[-layers:].requires_grad_(True)
    body.norm.requires_grad_(True)
