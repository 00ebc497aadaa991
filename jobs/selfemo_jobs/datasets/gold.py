"""Gold labels of a source, checked against the label set of the spec."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping

from selfemo_api.dataset_labels import label_key
from selfemo_jobs.datasets.reading import Notes, Oddity, ReadOptions
from selfemo_jobs.datasets.text_files import Place, shorten


class GoldLabels:
    """Reads the labels of a source, and counts those that are not in the label set.

    The error comes after all labels were read. Its counts show whether the label set is wrong, or
    only a few rows of the file.

    Parameters
    ----------
    options
        The label set, and the map of labels.
    field
        The column or key of the labels, for messages.
    notes
        Counts the turns without a label.
    """

    def __init__(self, options: ReadOptions, field: str, notes: Notes) -> None:
        self._order = tuple(options.labels or ())
        self._any = options.labels is None
        self._labels = {label_key(label): label for label in self._order}
        self._map = {label_key(name): label for name, label in options.label_map.items()}
        self._field = field
        self._notes = notes
        self._read = 0
        self._unknown: Counter[str] = Counter()
        self._first: tuple[Place, str, str] | None = None
        self._unlabeled = 0
        self._first_unlabeled: Place | None = None

    def turn(
        self, values: Iterable[str], place: Place, field: str | None = None
    ) -> tuple[str, ...]:
        """Return the labels of a turn as the label set writes them, each once, and count them.

        Parameters
        ----------
        values
            The labels as they are in the file. An empty one, or one that the map leaves out, stands
            for no label.
        place
            The place of the turn.
        field
            The key of the labels, for messages. None: that of the source.
        """
        field = field or self._field
        labels = tuple(dict.fromkeys(filter(None, (self._label(v, place, field) for v in values))))
        if not labels:
            self._unlabeled += 1
            self._first_unlabeled = self._first_unlabeled or place
        return labels

    def knows(self, value: str) -> bool:
        """Return whether a text is a label of the set, or of the map."""
        key = label_key(value)
        return key in self._labels or key in self._map

    def check(self) -> None:
        """Raise BadInput if a label that was read is not in the label set."""
        if self._first is None:
            if self._read:
                self._notes.add(Oddity.UNLABELED, self._first_unlabeled, self._unlabeled)
            return
        place, field, label = self._first
        counts = ", ".join(f"{shorten(name)}: {n}" for name, n in self._unknown.most_common(8))
        more = ", …" if len(self._unknown) > 8 else ""
        raise place.error(
            f"`{field}` is `{shorten(label)}`, an unknown emotion: `dataset.labels` contains "
            f"{', '.join(self._order)}. {self._unknown.total()} of {self._read} labels do not "
            f"match ({counts}{more}): fix the file or `dataset.labels`, or map them in "
            "`dataset.labelMap`"
        )

    def _label(self, value: str, place: Place, field: str) -> str:
        """Return a label of the set; empty for no label."""
        key = label_key(value)
        if key in self._map:
            mapped = self._map[key]
            value, key = mapped, label_key(mapped)
        if not key:
            return ""
        self._read += 1
        if self._any:
            return self._labels.setdefault(key, unicodedata.normalize("NFC", value).strip())
        if key not in self._labels:
            self._unknown[key] += 1
            self._first = self._first or (place, field, key)
            return key
        return self._labels[key]


def repeats_label(values: Iterable[str]) -> bool:
    """Return whether a label is there twice.

    Examples
    --------
    >>> repeats_label(["joy", "Joy"])
    True
    """
    counts: Mapping[str, int] = Counter(label_key(value) for value in values)
    return any(count > 1 for count in counts.values())
