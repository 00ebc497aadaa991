"""Dialogues in a scratch file, of which memory holds one at a time.

A dialogue of ten turns takes about four kilobytes as Python objects, and 17 bytes here: its place
in the file, and the numbers of its turns and labels.
"""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.store.local_files import translated_errors

#: The greatest number that a byte of the index holds.
_BYTE = 255


class _File:
    """The scratch file with its index. It has no name, so that a killed process leaves nothing."""

    def __init__(self, folder: Path) -> None:
        with translated_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.handle, path = tempfile.mkstemp(dir=folder)
            weakref.finalize(self, os.close, self.handle)
            Path(path).unlink()
        self.folder = folder
        self.ends = array("Q")
        self.turns = array("I")
        self.labels = array("B")
        self.labeled = array("I")
        self.prefixes: Sequence[tuple[int, str]] = ()

    def read(self, number: int) -> Dialogue:
        """Return a dialogue by its number in the file."""
        start = self.ends[number - 1] if number else 0
        with translated_errors(self.folder):
            data = os.pread(self.handle, self.ends[number] - start, start)
        name, turns = json.loads(data.decode("utf-8", "surrogatepass"))
        if self.prefixes:
            group = bisect_right(self.prefixes, number, key=lambda prefix: prefix[0]) - 1
            name = f"{self.prefixes[group][1]}{name}"
        return Dialogue(
            name, tuple(Utterance(speaker, text, tuple(rest)) for speaker, text, *rest in turns)
        )


class StoredDialogues(Sequence[Dialogue]):
    """Dialogues in a scratch file; each is read when it is used.

    Make them with :class:`DialogueWriter`. A slice reads nothing. The file is deleted with the last
    object that uses it.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     writer = DialogueWriter(Path(folder))
    ...     writer.add(Dialogue("d1", (Utterance("Ann", "Hi"),)))
    ...     dialogues = writer.finish()
    >>> dialogues[0].id, len(dialogues[1:]), dialogues.turn_counts.tolist()
    ('d1', 0, [1])
    """

    def __init__(self, file: _File, numbers: range) -> None:
        self._file = file
        self._numbers = numbers

    def __len__(self) -> int:
        """Return the number of dialogues."""
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Dialogue: ...
    @overload
    def __getitem__(self, index: slice) -> StoredDialogues: ...
    def __getitem__(self, index: int | slice) -> Dialogue | StoredDialogues:
        """Return one dialogue, or some of them."""
        if isinstance(index, slice):
            return StoredDialogues(self._file, self._numbers[index])
        return self._file.read(self._numbers[index])

    def __iter__(self) -> Iterator[Dialogue]:
        """Yield the dialogues in order."""
        return map(self._file.read, self._numbers)

    @property
    def turn_counts(self) -> NDArray[np.uint32]:
        """The number of turns of each dialogue; shape (dialogues,)."""
        return self._column(self._file.turns)

    @property
    def most_labels(self) -> NDArray[np.uint8]:
        """The number of labels of the turn with the most, at most 255; shape (dialogues,)."""
        return self._column(self._file.labels)

    @property
    def labeled_counts(self) -> NDArray[np.uint32]:
        """The number of turns of each dialogue that have a label; shape (dialogues,)."""
        return self._column(self._file.labeled)

    def _column(self, values: array[int]) -> NDArray[Any]:
        numbers = self._numbers
        column: NDArray[Any] = np.asarray(values)
        chosen: NDArray[Any] = column[np.arange(numbers.start, numbers.stop, numbers.step)]
        return chosen


class DialogueWriter:
    """Writes dialogues to a scratch file.

    Parameters
    ----------
    folder
        The scratch folder, which is made where it does not exist.

    Raises
    ------
    BadInput
        If the file cannot be written there, also by the methods.
    """

    def __init__(self, folder: Path) -> None:
        self._file = _File(folder)
        self._stream = os.fdopen(self._file.handle, "wb", closefd=False)

    def __len__(self) -> int:
        """Return the number of dialogues that were added."""
        return len(self._file.ends)

    def add(self, dialogue: Dialogue) -> None:
        """Add a dialogue."""
        file = self._file
        turns = [[turn.speaker, turn.text, *turn.labels] for turn in dialogue.turns]
        text = json.dumps([dialogue.id, turns], ensure_ascii=False, separators=(",", ":"))
        data = text.encode("utf-8", "surrogatepass")
        with translated_errors(file.folder):
            self._stream.write(data)
        file.ends.append((file.ends[-1] if file.ends else 0) + len(data))
        file.turns.append(len(turns))
        file.labels.append(min(_BYTE, max(len(turn.labels) for turn in dialogue.turns)))
        file.labeled.append(_labeled(dialogue))

    def truncate(self, count: int) -> None:
        """Leave out all dialogues but the first ones.

        Parameters
        ----------
        count
            The number of dialogues that remain.
        """
        file = self._file
        for column in (file.ends, file.turns, file.labels, file.labeled):
            del column[count:]
        with translated_errors(file.folder):
            self._stream.seek(file.ends[-1] if count else 0)
            self._stream.truncate()

    def finish(self, prefixes: Sequence[tuple[int, str]] = ()) -> StoredDialogues:
        """Return the dialogues. Nothing can be added afterwards.

        Parameters
        ----------
        prefixes
            What stands before the ids: pairs of the number of a dialogue and the text, for it and
            those after it. If there are any, the first is for dialogue 0.
        """
        with translated_errors(self._file.folder):
            self._stream.close()
        self._file.prefixes = prefixes
        return StoredDialogues(self._file, range(len(self)))


def turn_counts(dialogues: Sequence[Dialogue]) -> NDArray[Any]:
    """Return the number of turns of each dialogue; shape (dialogues,)."""
    if isinstance(dialogues, StoredDialogues):
        return dialogues.turn_counts
    return np.array([len(dialogue.turns) for dialogue in dialogues], np.uint32)


def labeled_counts(dialogues: Sequence[Dialogue]) -> NDArray[Any]:
    """Return the number of turns of each dialogue that have a label; shape (dialogues,)."""
    if isinstance(dialogues, StoredDialogues):
        return dialogues.labeled_counts
    return np.array([_labeled(dialogue) for dialogue in dialogues], np.uint32)


def has_label_sets(dialogues: Sequence[Dialogue]) -> bool:
    """Return whether a turn of the dialogues has several labels."""
    if isinstance(dialogues, StoredDialogues):
        return bool((dialogues.most_labels > 1).any())
    return any(len(turn.labels) > 1 for dialogue in dialogues for turn in dialogue.turns)


def _labeled(dialogue: Dialogue) -> int:
    return sum(bool(turn.labels) for turn in dialogue.turns)
