"""Training only a decoder's last layers."""

from __future__ import annotations

from transformers import PreTrainedModel

from selfemo_jobs.errors import BadInput


def train_last_layers(
    model: PreTrainedModel, layers: int, setting: str = "training.trainLayers"
) -> None:
    """Leave gradients to the last layers and the final norm; the embeddings stay as they are.

    No gradient is worked out below the first layer that is trained.

    Parameters
    ----------
    model
        A decoder of the usual build: `layers` and a final `norm`.
    layers
        How many; as many as there are, or more, is an error: leave the setting out.
    setting
        What the person who reads the error calls it.

    Raises
    ------
    BadInput
        If the model has no more layers than that, or is built otherwise.
    """
    body = model.base_model
    found = getattr(body, "layers", None)
    if found is None or getattr(body, "norm", None) is None:
        raise BadInput(
            f"`{setting}`: {type(model).__name__} has no `layers` and `norm` to choose "
            "from: leave it out"
        )
    if layers >= len(found):
        raise BadInput(
            f"`{setting}` is {layers}, but the model has {len(found)} layers: leave it "
            "out to train all"
        )
    model.requires_grad_(False)
    found[-layers:].requires_grad_(True)
    body.norm.requires_grad_(True)
