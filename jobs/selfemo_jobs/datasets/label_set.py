"""Label sets that do not come from a spec: the rules of ``spec.dataset.labels``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import TypeAdapter, ValidationError

from selfemo_api.dataset_labels import label_key
from selfemo_api.spec import DatasetSpec, Emotion
from selfemo_jobs.errors import BadInput

#: The most labels of a set, as of `dataset.labels`.
_MOST = next(
    int(limit)
    for rule in DatasetSpec.model_fields["labels"].metadata
    if (limit := getattr(rule, "max_length", None)) is not None
)
_EMOTION: TypeAdapter[str] = TypeAdapter(Emotion)


def split_labels(text: str) -> list[str]:
    """Return the labels of an option, without blanks around them and without empty ones.

    Parameters
    ----------
    text
        The labels, separated by commas.

    Examples
    --------
    >>> split_labels("neutral, joy,")
    ['neutral', 'joy']
    """
    return [label for part in text.split(",") if (label := part.strip())]


def check_label_set(labels: Sequence[str], where: str) -> None:
    """Check a label set by the rules of ``dataset.labels`` and of the check of an evolution.

    Parameters
    ----------
    labels
        The labels.
    where
        What has them, for the message.

    Raises
    ------
    BadInput
        If a run could not have them.
    """
    if len(labels) < 2 or len(set(labels)) < len(labels):
        raise BadInput(f"{where} must be two or more, without duplicates")
    if len(labels) > _MOST:
        raise BadInput(f"{where} are {len(labels)}, but at most {_MOST} are allowed")
    for label in labels:
        try:
            _EMOTION.validate_python(label)
        except ValidationError:
            raise BadInput(
                f"{where}: `{label}` cannot be a label: a label has 1 to 64 characters, no "
                "comma, semicolon, colon, double quote or control character, and no leading or "
                "trailing space"
            ) from None
    for problem in labels_alike(labels):
        raise BadInput(f"{where}: {problem}")


def labels_alike(labels: Sequence[str]) -> Iterator[str]:
    """Yield a message for each label that is the same as an earlier one in files or in answers.

    Parameters
    ----------
    labels
        The label set, in which all labels differ.

    Examples
    --------
    >>> list(labels_alike(["joy", "anger", "Joy"]))
    ['`joy` and `Joy` are the same label: labels are not case-sensitive']
    """
    # the rewards import NumPy, which the help of a command does not need
    from selfemo_jobs.rewards.word_units import normalize_answer

    by_key: dict[str, str] = {}
    by_answer: dict[str, str] = {}
    for label in labels:
        same = by_key.setdefault(label_key(label), label)
        alike = by_answer.setdefault(normalize_answer(label), label)
        if same != label:
            yield f"`{same}` and `{label}` are the same label: labels are not case-sensitive"
        elif alike != label:
            yield (
                f"`{alike}` and `{label}` are the same in an answer, where character widths, "
                "spaces and character variants are ignored: rename one of them"
            )
