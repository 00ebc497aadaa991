"""Dialogues of records: the objects of a JSON file, or the rows of a table.

Records have one of three layouts, which follows from the first one:

- A record is a dialogue with a list of turns: ``turns``, ``messages``, ``conversations`` …
- A record is a dialogue with parallel lists: the texts, and perhaps the speakers and the labels.
- A record is a turn. A column has the dialogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from selfemo_jobs.datasets.columns import (
    DIALOGUE,
    LABEL,
    PARTS,
    SPEAKER,
    TEXT,
    TURN,
    choose_columns,
    choose_key,
)
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.dialogue_grouping import TableRow, group_dialogues
from selfemo_jobs.datasets.documents import Node
from selfemo_jobs.datasets.gold import GoldLabels
from selfemo_jobs.datasets.reading import Notes, Oddity, ReadOptions
from selfemo_jobs.datasets.text_files import shorten
from selfemo_jobs.datasets.turn_labels import OWN_KEY, label_node, label_values
from selfemo_jobs.errors import BadInput

#: The key of the turns in this project's own format.
TURNS = "turns"
#: Common keys of a dialogue's turns.
_TURN_KEYS = (
    TURNS,
    *("messages", "conversation", "conversations", "dialogue", "dialog", "utterances"),
)
#: The names that stand for the speaker in an object, the best first.
_SPEAKER_KEYS = ("speaker", "name", "role", "from", "author")
#: The roles of messages that are not a speaker's.
_NOT_SPEAKERS = frozenset({"system", "developer", "tool", "function"})


def read_records(
    records: Sequence[Node], file: str, options: ReadOptions, notes: Notes, *, is_table: bool
) -> list[Dialogue]:
    """Return the dialogues of records in file order.

    Parameters
    ----------
    records
        The records, each an object.
    file
        The file's URI, for messages.
    options
        What to read.
    notes
        Counts what is odd in the records.
    is_table
        Whether the records are rows of a table. Then each is a turn, unless it has a list.

    Raises
    ------
    BadInput
        If a part of a turn is missing, empty or of another kind, or a label is unknown.
    """
    if not records:
        return []
    reader = RecordReader(file, options, notes)
    layout = layout_of(records[0], options, is_table=is_table)
    if layout is None:
        dialogues = reader.rows(records)
    else:
        dialogues = [reader.dialogue(node, layout, n) for n, node in enumerate(records, start=1)]
    reader.check()
    return dialogues


@dataclass(frozen=True)
class DialogueLayout:
    """How the turns of a dialogue are in its record."""

    key: str
    """The key of the list of turns, or of the list of texts."""
    parallel: bool
    """Whether the record has parallel lists: the texts, and perhaps the speakers and the labels."""


def layout_of(first: Node, options: ReadOptions, *, is_table: bool) -> DialogueLayout | None:
    """Return the layout of records that are dialogues; None if each record is a turn.

    Parameters
    ----------
    first
        The first record.
    options
        What to read.
    is_table
        Whether the records are rows of a table.
    """
    key = _turns_key(first)
    texts = _texts_key(first, options)
    if key is None and texts is not None and isinstance(first.value.get(texts), list):
        return DialogueLayout(texts, parallel=True)
    if key is None and (texts is not None or is_table):
        return None
    return DialogueLayout(key or TURNS, parallel=False)


def _turns_key(record: Node) -> str | None:
    """Return the key of a record's list of turns; None if it has none."""
    entries = dict(record.entries())
    if TURNS in entries and not _has_texts(entries[TURNS]):
        return TURNS
    for key in _TURN_KEYS:
        value = entries[key].value if key in entries else None
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return key
    return None


def _texts_key(record: Node, options: ReadOptions) -> str | None:
    """Return the key of a record's text, or of its list of texts."""
    key = choose_key(TEXT, record.value, options.columns)
    if key is not None:
        return key
    lists = (key for key in _TURN_KEYS if key in record.value)
    return next((key for key in lists if _has_texts(record.get(key))), None)


def _has_texts(node: Node) -> bool:
    return isinstance(node.value, list) and bool(node.value) and isinstance(node.value[0], str)


class RecordReader:
    """Reads the records of a file, one by one or all together.

    Parameters
    ----------
    file
        The file's URI, for messages.
    options
        What to read.
    notes
        Counts what is odd in the records.
    unique_ids
        Whether to check that no two dialogues have the same id. The ids take memory.
    """

    def __init__(
        self, file: str, options: ReadOptions, notes: Notes, *, unique_ids: bool = True
    ) -> None:
        self._file = file
        self._unique_ids = unique_ids
        self._options = options
        self._columns = options.columns
        self._notes = notes
        self._gold = GoldLabels(options, OWN_KEY, notes) if options.read_labels else None
        self._record_of: dict[str, Node] = {}
        self._numbers: set[str] = set()  # of the records that have no id

    def check(self) -> None:
        """Raise BadInput if a label is not in the label set."""
        if self._gold:
            self._gold.check()

    def dialogue(self, record: Node, layout: DialogueLayout, number: int) -> Dialogue:
        """Return the dialogue of a record.

        Parameters
        ----------
        record
            The record.
        layout
            How the turns are in it.
        number
            The number of the record in the file, from 1. It is the id of a dialogue without one.
        """
        read = self._parallel if layout.parallel else self._nested
        return read(record, layout.key, number)

    def _nested(self, record: Node, key: str, number: int) -> Dialogue:
        """Return the dialogue of a record with a list of turns."""
        if record.find(key) is None:
            raise record.missing(
                key, "a dialogue must have `turns`, `messages` or another list of turns"
            )
        turns = record.get(key)
        items = turns.items()
        if not items:
            raise turns.error("is empty: a dialogue must have at least one turn")
        name = self._id(record, key, number)
        read = (self._turn(item, chat=key != TURNS) for item in items)
        kept = tuple(turn for turn in read if turn is not None)
        if not kept:
            raise turns.error("contains no message of a speaker")
        return Dialogue(name, kept)

    def _parallel(self, record: Node, key: str, number: int) -> Dialogue:
        """Return the dialogue of a record with parallel lists."""
        texts = record.get(key).items()
        if not texts:
            raise record.get(key).error("is empty: a dialogue must have at least one turn")
        speakers = self._list_beside(record, SPEAKER, key, len(texts))
        labels = self._list_beside(record, LABEL, key, len(texts)) if self._gold else None
        turns = tuple(
            Utterance(
                speakers[i].name(self._notes) if speakers else "",
                text.text(self._notes),
                self._labels(labels[i] if labels else None, record),
            )
            for i, text in enumerate(texts)
        )
        return self.with_speakers(Dialogue(self._id(record, key, number), turns))

    def rows(self, records: Sequence[Node]) -> list[Dialogue]:
        """Return the dialogues of records of which each is a turn."""
        columns = self.columns(dict.fromkeys(k for record in records for k, _ in record.entries()))
        if DIALOGUE not in columns:
            self._notes.add(Oddity.NO_DIALOGUE, None, len(records))
        rows = [self.row(node, columns, number) for number, node in enumerate(records, start=1)]
        dialogues = group_dialogues(rows, columns.get(TURN, TURN))
        return [self.with_speakers(dialogue) for dialogue in dialogues]

    def columns(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the column of each part of a turn.

        Parameters
        ----------
        keys
            The names of all columns.

        Raises
        ------
        BadInput
            If no column has the text, or the columns do not say which dialogue a turn is of.
        """
        names = list(keys)
        parts = PARTS if self._gold else tuple(part for part in PARTS if part != LABEL)
        columns = choose_columns(names, self._columns, self._file, parts)
        if TEXT not in columns:
            raise BadInput(
                f"{self._file}: no column contains the text: specify it in "
                f"`dataset.columns.text` (columns in the file: {shorten(', '.join(names), 200)})"
            )
        if TURN in columns and DIALOGUE not in columns:
            raise BadInput(
                f"{self._file}: `{columns[TURN]}` numbers the turns, but no column contains the "
                "dialogue: specify it in `dataset.columns.dialogue`"
            )
        return columns

    def row(self, record: Node, columns: dict[str, str], number: int) -> TableRow:
        """Return the turn of a record.

        Parameters
        ----------
        record
            The record.
        columns
            The column of each part of a turn.
        number
            The number of the record in the file, from 1.
        """
        label = record.find(columns[LABEL]) if LABEL in columns else None
        speaker = record.get(columns[SPEAKER]).name(self._notes) if SPEAKER in columns else ""
        turn = Utterance(
            speaker, record.get(columns[TEXT]).text(self._notes), self._labels(label, record)
        )
        name = record.get(columns[DIALOGUE]).name() if DIALOGUE in columns else str(number)
        order = record.get(columns[TURN]).number() if TURN in columns else None
        return TableRow(record.place, name, order, turn)

    def _turn(self, node: Node, *, chat: bool) -> Utterance | None:
        """Return a turn object; None for a message that is not a speaker's."""
        keys = node.value if isinstance(node.value, dict) else {}
        text_key = choose_key(TEXT, keys, self._columns) or TEXT
        if chat and self._is_skipped(node, text_key):
            self._notes.add(Oddity.SKIPPED_MESSAGE, node.place)
            return None
        speaker_keys = (self._columns.get(SPEAKER, SPEAKER), *_SPEAKER_KEYS)
        speaker_key = next((key for key in speaker_keys if keys.get(key) is not None), SPEAKER)
        speaker = node.get(speaker_key).name(self._notes)
        text = _message_text(node.get(text_key)).text(self._notes)
        if self._gold is None:
            return Utterance(speaker, text)
        labels = label_node(node, self._columns)
        if not chat and labels and labels.key == OWN_KEY:
            labels.items()  # raises an error if it is not a list
        return Utterance(speaker, text, self._labels(labels, node))

    def _is_skipped(self, node: Node, text_key: str) -> bool:
        role = node.find("role") or node.find("from")
        name = role.value if role is not None else None
        is_not_speaker = isinstance(name, str) and name in _NOT_SPEAKERS
        return is_not_speaker or node.find(text_key) is None

    def _labels(self, node: Node | None, owner: Node) -> tuple[str, ...]:
        if self._gold is None:
            return ()
        if node is None:
            return self._gold.turn((), owner.place)
        values = label_values(node, self._gold, self._options.label_names)
        return self._gold.turn(values, node.place, node.key)

    def _list_beside(
        self, record: Node, part: str, texts: str, length: int
    ) -> Sequence[Node] | None:
        """Return the list of a part of the turns, as long as the list of texts; None without."""
        keys = {key: value for key, value in record.value.items() if key != texts}
        key = choose_key(part, keys, self._columns)
        if key is None:
            return None
        items = record.get(key).items()
        if len(items) != length:
            raise record.get(key).error(f"has {len(items)} items, `{texts}` has {length}")
        return items

    def _id(self, record: Node, turns: str, number: int) -> str:
        """Return a dialogue's id. Raises BadInput if it is missing, or an earlier one has it."""
        keys = {key: value for key, value in record.value.items() if key != turns}
        named = self._columns.get(DIALOGUE)
        key = next((k for k in (named, "id") if k in keys), choose_key(DIALOGUE, keys, {}))
        if key is None and turns != TURNS:
            name = str(number)
            if self._unique_ids and name in self._record_of:
                raise _mixed_ids(record, name)
            if self._unique_ids:
                self._numbers.add(name)
            return name
        name = record.get(key or "id").name()
        if not self._unique_ids:
            return name
        if name in self._numbers:
            raise _mixed_ids(record, name)
        first = self._record_of.setdefault(name, record)
        if first is not record:
            where = first.place.within or first.path
            raise record.place.error(f"`{key}` {name} appears twice (first: {where})")
        return name

    def with_speakers(self, dialogue: Dialogue) -> Dialogue:
        """Return a dialogue with names for its speakers, if the file has none."""
        if dialogue.turns[0].speaker:
            return dialogue
        self._notes.add(Oddity.NO_SPEAKER, None, len(dialogue.turns) > 1)
        turns = enumerate(dialogue.turns)
        named = tuple(replace(turn, speaker="AB"[i % 2]) for i, turn in turns)
        return replace(dialogue, turns=named)


def _message_text(node: Node) -> Node:
    """Return a message's text; the parts of a message that has several are joined."""
    if not isinstance(node.value, list):
        return node
    parts = [part.value for part in node.items() if isinstance(part.value, dict)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    return replace(node, value=" ".join(texts))


def _mixed_ids(record: Node, name: str) -> BadInput:
    """Return the error of two dialogues of which one has the other's number as its id."""
    return record.place.error(
        f"the id {name} is the number of a record without an id: set an id for all records, or "
        "for none"
    )
