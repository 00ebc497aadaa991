"""What ``selfemo respond`` and ``selfemo chat`` share: the emotion of a reply."""

from __future__ import annotations

from collections.abc import Sequence

from selfemo_api.dataset_labels import label_key
from selfemo_api.text.suggestions import did_you_mean
from selfemo_jobs.errors import BadInput

#: The number of turns before a reply that are kept: the most that a prompt can show.
MOST_CONTEXT = 64


def label_of(emotion: str, labels: Sequence[str], where: str) -> str:
    """Return the label that an emotion is, as the label set writes it.

    Parameters
    ----------
    emotion
        The emotion, as a person typed it.
    labels
        The label set.
    where
        The option or the command with the emotion, for the message.

    Raises
    ------
    BadInput
        If there is no such label.

    Examples
    --------
    >>> label_of("Joy", ["joy", "anger"], "--emotion")
    'joy'
    """
    by_key = {label_key(label): label for label in labels}
    label = by_key.get(label_key(emotion))
    if label is None:
        raise BadInput(
            f"{f'{where} {emotion}'.rstrip()}: must be a label of the model ({', '.join(labels)})"
            f"{did_you_mean(emotion, labels)}"
        )
    return label
