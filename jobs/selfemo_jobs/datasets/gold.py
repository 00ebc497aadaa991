"""Gold labels of a source, checked against the label set of the spec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selfemo_jobs.datasets.text_files import Place, shorten


class GoldLabels:
    """Reads the labels of a source, and counts those that are not in the label set.

    The error comes after all labels were read. Its counts show whether the label set is wrong, or
    only a few rows of the file.

    Parameters
    ----------
    labels
        The label set, ``dataset.labels``.
    field
        The column or key of the labels, for messages.
    """

    def __init__(self, labels: Sequence[str], field: str) -> None:
        self._labels = frozenset(labels)
        self._order = tuple(labels)
        self._field = field
        self._rows = 0
        self._unknown: Counter[str] = Counter()
        self._first: tuple[Place, str] | None = None

    def read(self, value: str, place: Place) -> str:
        """Return a label in lower case, and count it.

        Parameters
        ----------
        value
            The label as it is in the file.
        place
            The place of the row.

        Raises
        ------
        BadInput
            If the label is empty.
        """
        label = value.strip().lower()
        if not label:
            raise place.error(f"`{self._field}` is empty: a labeled source needs one in every row")
        self._rows += 1
        if label not in self._labels:
            self._unknown[label] += 1
            self._first = self._first or (place, label)
        return label

    def check(self) -> None:
        """Raise BadInput if a label that was read is not in the label set."""
        if self._first is None:
            return
        place, label = self._first
        counts = ", ".join(f"{shorten(name)}: {n}" for name, n in self._unknown.most_common(8))
        more = ", …" if len(self._unknown) > 8 else ""
        raise place.error(
            f"`{self._field}` is `{shorten(label)}`, an unknown emotion: `dataset.labels` has "
            f"{', '.join(self._order)}. {self._unknown.total()} of {self._rows} labels do not fit "
            f"({counts}{more}): fix the file or `dataset.labels`"
        )
