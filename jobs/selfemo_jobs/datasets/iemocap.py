"""IEMOCAP's text, in the layouts that BiosERC and InstructERC publish. No data is included here.

BiosERC (``iemocap.{train,valid,test}.json``) is an object. It has dialogues by their id, each with
the parallel lists ``sentences``, ``genders`` (F or M) and ``labels`` (0 to 5)::

    {"Ses01F_impro01": {"sentences": ["…"], "genders": ["F"], "labels": [2]}, …}

It may also be a list of such dialogues, each with its id as ``s_id``. Labels may be names too. An
utterance on which the annotators did not agree (``xxx``, -1 or null) has no label.

InstructERC (``{train,valid,test}.json``, which its own scripts write) is JSON Lines with ``input``
and ``target``. Each line has an utterance with the turns before it. InstructERC's pickles are not
read, because unpickling runs code.
"""

from __future__ import annotations

import re

from selfemo_api.dataset_labels import IEMOCAP, label_key
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.documents import Node, parse
from selfemo_jobs.datasets.gold import GoldLabels
from selfemo_jobs.datasets.reading import Notes, ReadOptions
from selfemo_jobs.datasets.text_files import Place, SourceFile, decode_text, shorten

#: The first names that BiosERC gives to F and M in each session. BiosERC writes them in capitals.
NAMES = {
    "Ses01": {"F": "Mary", "M": "James"},
    "Ses02": {"F": "Patricia", "M": "John"},
    "Ses03": {"F": "Jennifer", "M": "Robert"},
    "Ses04": {"F": "Linda", "M": "Michael"},
    "Ses05": {"F": "Elizabeth", "M": "William"},
}
_TURN = re.compile(r' ?Speaker_(\d+):"(.*)" ?', re.DOTALL)
#: What stands for an utterance without an agreed label.
_NO_LABEL = frozenset({"", "xxx", "-1"})


def read_iemocap(file: SourceFile, options: ReadOptions, notes: Notes) -> list[Dialogue]:
    """Return the dialogues of an IEMOCAP file; see :func:`datasets.load.load_source`."""
    decoded = decode_text(file.read_bytes(), file.uri, fix_typography=False)
    reader = _IemocapReader(file.uri, options, notes)
    if decoded.text.lstrip().startswith('{"input"'):
        return reader.instructerc(decoded.text)
    return reader.bioserc(parse(decoded.text, Place(file.uri, 0)))


class _IemocapReader:
    """Reads the dialogues of a file in either layout."""

    def __init__(self, file: str, options: ReadOptions, notes: Notes) -> None:
        self._file = file
        self._options = options
        self._notes = notes
        self._gold = GoldLabels(options, "labels", notes) if options.read_labels else None

    def bioserc(self, root: Node) -> list[Dialogue]:
        """Return the dialogues of BiosERC's document."""
        if isinstance(root.value, list):
            named = [(node.get("s_id").text(), node) for node in root.items()]
        else:
            named = root.entries()
        names: set[str] = set()
        dialogues = []
        for name, node in named:
            if name in names:
                raise node.error(f"is a duplicate of dialogue {name}")
            names.add(name)
            dialogues.append(Dialogue(name, self._turns(name, node)))
        if self._gold:
            self._gold.check()
        return dialogues

    def instructerc(self, text: str) -> list[Dialogue]:
        """Return the dialogues of InstructERC's lines. A line with one turn begins a dialogue."""
        dialogues: list[list[Utterance]] = []
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            node = parse(line, Place(self._file, number))
            turns = self._input_turns(node.get("input"))
            if len(turns) == 1:
                dialogues.append([])
            past = len(turns) - 1
            known = [(turn.speaker, turn.text) for turn in dialogues[-1]] if dialogues else []
            if past and known[-past:] != turns[:-1]:
                raise node.get("input").error("does not continue the previous line")
            emotions = self._labels(node.get("target"), self._gold) if self._gold else ()
            dialogues[-1].append(Utterance(*turns[-1], emotions))
        if self._gold:
            self._gold.check()
        return [Dialogue(str(i), tuple(turns)) for i, turns in enumerate(dialogues)]

    def _turns(self, name: str, node: Node) -> tuple[Utterance, ...]:
        sentences = node.get("sentences").items()
        if not sentences:
            raise node.get("sentences").error(
                "is empty: a dialogue must have at least one utterance"
            )
        speakers = _parallel(node, "genders", len(sentences))
        emotions = _parallel(node, "labels", len(sentences)) if self._gold else ()
        return tuple(
            Utterance(
                _speaker(name, speakers[i]),
                sentence.text(self._notes),
                self._labels(emotions[i], self._gold) if self._gold else (),
            )
            for i, sentence in enumerate(sentences)
        )

    def _labels(self, node: Node, gold: GoldLabels) -> tuple[str, ...]:
        return gold.turn([self._emotion(node, gold)], node.place, node.key)

    def _emotion(self, node: Node, gold: GoldLabels) -> str:
        """Return the name of a label; empty for no label. The files have its number."""
        value = node.value
        if value is None or (isinstance(value, str | int) and label_key(str(value)) in _NO_LABEL):
            return ""
        if isinstance(value, str):
            return value
        if type(value) is int and gold.knows(str(value)):
            return str(value)
        if type(value) is not int or not 0 <= value < len(IEMOCAP):
            raise node.error(f"must be 0 to {len(IEMOCAP) - 1} ({', '.join(IEMOCAP)}) or a name")
        if self._options.labels is not None and not all(map(gold.knows, IEMOCAP)):
            raise node.error(
                f"is {value}: numbers refer to {', '.join(IEMOCAP)}, and `dataset.labels` has "
                "other labels: specify the label of each number in `dataset.labelMap`, for "
                f'example "0": {self._options.labels[0]}'
            )
        return IEMOCAP[value]

    def _input_turns(self, node: Node) -> list[tuple[str, str]]:
        """Return the speaker and the text of each turn in an InstructERC input, the target last."""
        value = node.value if isinstance(node.value, str) else ""
        body, question, _ = value.partition(" ### Please select the emotional label of ")
        _, preface, dialogue = body.partition("involves several speakers. ### ")
        if not question or not preface:
            raise node.error("is not InstructERC's prompt for one utterance's emotion")
        pieces = dialogue.split("\t")[1:]
        turns = []
        for i, piece in enumerate(pieces, start=1):
            match = _TURN.fullmatch(piece)
            if match is None or not match[2].strip():
                raise node.error(f"has an empty or broken turn: {shorten(piece.strip())}")
            # what is odd in an earlier turn was counted in its own line
            notes = self._notes if i == len(pieces) else Notes()
            turns.append((f"Speaker_{match[1]}", notes.clean(match[2], node.place)))
        if not turns:
            raise node.error("has no turn")
        return turns


def _parallel(node: Node, key: str, length: int) -> list[Node]:
    """Return the items of a list that has the length of ``sentences``. Raises BadInput."""
    items = node.get(key).items()
    if len(items) != length:
        raise node.get(key).error(f"has {len(items)} items, `sentences` has {length}")
    return items


def _speaker(name: str, node: Node) -> str:
    session = NAMES.get(name[:5])
    if session is None:
        raise node.error(f"is in dialogue {name}: IEMOCAP's begin with Ses01 to Ses05")
    if node.value not in ("F", "M"):
        raise node.error("must be F or M")
    return session[node.value]
