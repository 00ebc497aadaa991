"""What a reader of a format gets, and what it notices in a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from selfemo_jobs.datasets.text_files import WINDOWS_1252, DecodedText, Place, one_line


class Oddity(StrEnum):
    """Something in a file that is not an error, and that its owner should know."""

    WINDOWS_1252 = "Windows1252"
    GARBLED = "GarbledText"
    LOST_LETTER = "LostLetters"
    LOST_APOSTROPHE = "LostApostrophes"
    CONTROL = "ControlCharacters"
    UNLABELED = "Unlabeled"
    NO_SPEAKER = "NoSpeaker"
    NO_DIALOGUE = "NoDialogue"
    SKIPPED_MESSAGE = "SkippedMessages"


#: The warning of each oddity, for one and for several. ``{n}`` is the count.
_MESSAGES = {
    Oddity.WINDOWS_1252: (
        "1 Windows-1252 character converted to Unicode",
        "{n} Windows-1252 characters converted to Unicode",
    ),
    Oddity.GARBLED: (
        "1 garbled character, for example `â€™` for `’`: UTF-8 was decoded as Windows-1252",
        "{n} garbled characters, for example `â€™` for `’`: UTF-8 was decoded as Windows-1252",
    ),
    Oddity.LOST_LETTER: (
        "1 replacement character (U+FFFD): a letter was lost",
        "{n} replacement characters (U+FFFD): letters were lost",
    ),
    Oddity.LOST_APOSTROPHE: (
        "1 question mark within a word, for example `I?m`: an apostrophe was lost",
        "{n} question marks within words, for example `I?m`: apostrophes were lost",
    ),
    Oddity.CONTROL: (
        "1 control or invisible character remains in the text",
        "{n} control or invisible characters remain in the text",
    ),
    Oddity.UNLABELED: (
        "1 turn without a label is context only",
        "{n} turns without a label are context only",
    ),
    Oddity.NO_SPEAKER: (
        "1 dialogue has no speakers: its turns alternate between A and B",
        "{n} dialogues have no speakers: their turns alternate between A and B",
    ),
    Oddity.NO_DIALOGUE: (
        "no column contains the dialogue (`dataset.columns.dialogue`): the row is treated as a "
        "separate dialogue",
        "no column contains the dialogue (`dataset.columns.dialogue`): each of {n} rows is "
        "treated as a separate dialogue",
    ),
    Oddity.SKIPPED_MESSAGE: (
        "1 system or tool message is omitted",
        "{n} system or tool messages are omitted",
    ),
}

_CONTINUATION = "".join(WINDOWS_1252.values()) + "".join(chr(code) for code in range(0x80, 0xC0))
#: Signs that may follow a capital `Ã` or `Â` in correct text, as in "AMANHÃ…".
_PUNCTUATION = "…“”‘’–—\u00a0»"
_BYTES = "".join(sign for sign in _CONTINUATION if sign not in _PUNCTUATION)
#: UTF-8 that was decoded as Windows-1252. It covers Latin letters (`Ã©`), typography (`â€™`), emoji
#: (`ðŸ˜€`), the replacement character (`ï¿½`), and two or more signs of three bytes (`ä½ å¥½`).
_GARBLED = re.compile(
    f"[ÃÂ][{_BYTES}]|(?<![A-ZÀ-Þ])[ÃÂ][{_PUNCTUATION}]|â€[{_CONTINUATION}]?|ðŸ[{_CONTINUATION}]{{2}}"
    f"|ï¿½|(?:[à-ï][{_CONTINUATION}]{{2}}){{2,}}"
)
_LOST_APOSTROPHE = re.compile(
    r"(?<=[^\W\d_])\?(?=(?:m|s|t|re|ve|ll|d)\b)|\b(?:[cdjlmnst]|qu)\?(?=[^\W\d_])", re.IGNORECASE
)
#: Control characters other than white space, and invisible signs. The joiners and direction marks
#: of scripts, and the variation selectors of emoji, are not among them.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x9f\u00ad\u200b\u2060-\u2064\ufeff\ufff9-\ufffb\ue000-\uf8ff]"
)
#: The characters of texts that readers of a report are told of.
ODD_CHARACTERS = re.compile(_CONTROL.pattern.replace("[", "[\ufffd", 1))
#: Text that no rule above concerns: ASCII without question marks and control characters.
_PLAIN = re.compile(r"[\t\n\r -> @-~]*")


@dataclass(frozen=True)
class SourceWarning:
    """An oddity of a source, with the number of times it occurs."""

    kind: Oddity
    count: int
    place: Place | None
    """The first place, if it has one."""

    @property
    def message(self) -> str:
        """The warning, without the name of the file."""
        where = self.place.within if self.place else ""
        message = _MESSAGES[self.kind][self.count > 1].format(n=self.count)
        return f"{message} (first: {where})" if where else message


class Notes:
    """Counts the oddities of a source while it is read."""

    def __init__(self) -> None:
        self._counts: Counter[Oddity] = Counter()
        self._first: dict[Oddity, Place | None] = {}

    def add(self, kind: Oddity, place: Place | None, count: int = 1) -> None:
        """Count an oddity at a place."""
        if count:
            self._counts[kind] += count
            self._first.setdefault(kind, place)

    def add_decoded(self, decoded: DecodedText, file: str) -> None:
        """Count the single Windows-1252 bytes that were converted in a file."""
        self.add(Oddity.WINDOWS_1252, Place(file, decoded.first_line), decoded.converted)

    def clean(self, text: str, place: Place) -> str:
        r"""Return a text on one line, and count what is odd in it.

        Control characters of Unicode's block C1 are the bytes of Windows-1252 signs that a program
        took for Latin-1. They are read as those signs.

        Examples
        --------
        >>> Notes().clean("It\x92s  over\x85", Place("train.csv", 2))
        'It’s over…'
        """
        if _PLAIN.fullmatch(text):
            return one_line(text)
        fixed = text.translate(WINDOWS_1252)
        if fixed != text:
            converted = sum(a != b for a, b in zip(text, fixed, strict=True))
            self.add(Oddity.WINDOWS_1252, place, converted)
        for kind, pattern in (
            (Oddity.GARBLED, _GARBLED),
            (Oddity.LOST_APOSTROPHE, _LOST_APOSTROPHE),
            (Oddity.CONTROL, _CONTROL),
        ):
            self.add(kind, place, sum(1 for _ in pattern.finditer(fixed)))
        self.add(Oddity.LOST_LETTER, place, fixed.count("\ufffd"))
        return one_line(fixed)

    def warnings(self) -> tuple[SourceWarning, ...]:
        """Return the warnings, in the order of :class:`Oddity`."""
        return tuple(
            SourceWarning(kind, self._counts[kind], self._first[kind])
            for kind in Oddity
            if self._counts[kind]
        )


@dataclass(frozen=True)
class ReadOptions:
    """What a reader is to read."""

    labels: Sequence[str] | None
    """The label set, ``dataset.labels``. None: any label is taken as it is."""
    read_labels: bool = True
    """Whether the turns have their labels."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The column of each part of a turn, ``dataset.columns``."""
    label_map: Mapping[str, str] = field(default_factory=dict)
    """The label of the set for labels in the file, ``dataset.labelMap``; empty: no label."""
    label_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of the numbers in a column, as the card of a Hugging Face dataset has them."""
