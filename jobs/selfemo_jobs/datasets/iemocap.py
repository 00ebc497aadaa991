"""IEMOCAP's text, in the layouts that BiosERC and InstructERC publish. No data is included here.

BiosERC (``iemocap.{train,valid,test}.json``) is an object. It has dialogues by their id, each with
the parallel lists ``sentences``, ``genders`` (F or M) and ``labels`` (0 to 5)::

    {"Ses01F_impro01": {"sentences": ["…"], "genders": ["F"], "labels": [2]}, …}

It may also be a list of such dialogues, each with its id as ``s_id``.

InstructERC (``{train,valid,test}.json``, which its own scripts write) is JSON Lines with ``input``
and ``target``. Each line has an utterance with the turns before it. InstructERC's pickles are not
read, because unpickling runs code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from selfemo_api.dataset_labels import IEMOCAP
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.datasets.documents import Node, parse
from selfemo_jobs.datasets.gold import GoldLabels
from selfemo_jobs.datasets.text_files import Place, one_line, read_text, shorten
from selfemo_jobs.errors import BadInput

#: The first names that BiosERC gives to F and M in each session. BiosERC writes them in capitals.
NAMES = {
    "Ses01": {"F": "Mary", "M": "James"},
    "Ses02": {"F": "Patricia", "M": "John"},
    "Ses03": {"F": "Jennifer", "M": "Robert"},
    "Ses04": {"F": "Linda", "M": "Michael"},
    "Ses05": {"F": "Elizabeth", "M": "William"},
}
_TURN = re.compile(r' ?Speaker_(\d+):"(.*)" ?', re.DOTALL)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def read_iemocap(
    path: Path, file: str, labels: Sequence[str], *, read_labels: bool
) -> list[Dialogue]:
    """Return the dialogues of an IEMOCAP file; see :func:`datasets.load.load_source`."""
    with path.open("rb") as stream:
        if _PICKLE.match(stream.read(2)):
            raise BadInput(
                f"{file} is a pickle, and unpickling runs code: convert it to BiosERC's JSON"
            )
    text = read_text(path, file, fix_typography=False)
    if text.lstrip().startswith('{"input"'):
        return _instructerc(text, file, labels, read_labels)
    return _bioserc(parse(text, Place(file, 0)), labels, read_labels)


def _bioserc(root: Node, labels: Sequence[str], read_labels: bool) -> list[Dialogue]:
    if isinstance(root.value, list):
        named = [(node.get("s_id").text(), node) for node in root.items()]
    else:
        named = root.entries()
    gold = GoldLabels(labels, "labels") if read_labels else None
    names: set[str] = set()
    dialogues = []
    for name, node in named:
        if name in names:
            raise node.error(f"is the dialogue {name} for the second time")
        names.add(name)
        dialogues.append(Dialogue(name, _turns(name, node, gold)))
    if gold:
        gold.check()
    return dialogues


def _turns(name: str, node: Node, gold: GoldLabels | None) -> tuple[Utterance, ...]:
    sentences = node.get("sentences").items()
    if not sentences:
        raise node.get("sentences").error("is empty: a dialogue has at least one utterance")
    speakers = _parallel(node, "genders", len(sentences))
    emotions = _parallel(node, "labels", len(sentences)) if gold else [None] * len(sentences)
    return tuple(
        Utterance(
            _speaker(name, speaker),
            sentence.text(),
            (gold.read(_emotion(emotion), emotion.place),) if gold and emotion else (),
        )
        for sentence, speaker, emotion in zip(sentences, speakers, emotions, strict=True)
    )


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


def _emotion(node: Node) -> str:
    """Return the name of a label. The files have its number."""
    if isinstance(node.value, str):
        return node.text()
    if type(node.value) is not int or not 0 <= node.value < len(IEMOCAP):
        raise node.error(f"must be 0 to {len(IEMOCAP) - 1} ({', '.join(IEMOCAP)}) or a name")
    return IEMOCAP[node.value]


def _instructerc(text: str, file: str, labels: Sequence[str], read_labels: bool) -> list[Dialogue]:
    """Return the dialogues of InstructERC's lines. A line with one turn begins a dialogue."""
    gold = GoldLabels(labels, "target") if read_labels else None
    dialogues: list[list[Utterance]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        node = parse(line, Place(file, number))
        turns = _input_turns(node.get("input"))
        if len(turns) == 1:
            dialogues.append([])
        past = len(turns) - 1
        known = [(turn.speaker, turn.text) for turn in dialogues[-1]] if dialogues else []
        if past and known[-past:] != turns[:-1]:
            raise node.get("input").error("does not continue the line before")
        emotions = (gold.read(node.get("target").text(), node.place),) if gold else ()
        dialogues[-1].append(Utterance(*turns[-1], emotions))
    if gold:
        gold.check()
    return [Dialogue(str(i), tuple(turns)) for i, turns in enumerate(dialogues)]


def _input_turns(node: Node) -> list[tuple[str, str]]:
    """Return the speaker and the text of each turn in an InstructERC input, the target last."""
    value = node.value if isinstance(node.value, str) else ""
    body, question, _ = value.partition(" ### Please select the emotional label of ")
    _, preface, dialogue = body.partition("involves several speakers. ### ")
    if not question or not preface:
        raise node.error("is not InstructERC's prompt for one utterance's emotion")
    turns = []
    for piece in dialogue.split("\t")[1:]:
        match = _TURN.fullmatch(piece)
        if match is None or not match[2].strip():
            raise node.error(f"has an empty or broken turn: {shorten(piece.strip())}")
        turns.append((f"Speaker_{match[1]}", one_line(match[2])))
    if not turns:
        raise node.error("has no turn")
    return turns
