"""IEMOCAP's text in the layouts published with BiosERC and InstructERC. None of it is shipped.

BiosERC (``iemocap.{train,valid,test}.json``): one object, dialogues by their id, each with parallel
lists ``sentences``, ``genders`` (F or M) and ``labels`` (0 … 5)::

    {"Ses01F_impro01": {"sentences": ["…"], "genders": ["F"], "labels": [2]}, …}

or a list of such objects, each with its id as ``s_id``.

InstructERC (``{train,valid,test}.json`` that its own scripts write): JSON lines with ``input`` and
``target``, one utterance each with the turns up to it. Its pickles are not read: unpickling runs
code.
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

#: The given names that BiosERC puts in place of F and M, by session; there in capitals.
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
    with path.open("rb") as opened:
        if _PICKLE.match(opened.read(2)):
            raise BadInput(
                f"{file} is a pickle, and unpickling runs code: convert it to BiosERC's JSON"
            )
    text = read_text(path, file, mend=False)
    if text.lstrip().startswith('{"input"'):
        return _instructerc(text, file, labels, read_labels)
    return _bioserc(parse(text, Place(file, 0)), labels, read_labels)


def _bioserc(root: Node, labels: Sequence[str], read_labels: bool) -> list[Dialogue]:
    if isinstance(root.value, list):
        named = [(node.get("s_id").text(), node) for node in root.items()]
    else:
        named = root.entries()
    gold = GoldLabels(labels, "labels") if read_labels else None
    found: set[str] = set()
    dialogues = []
    for name, node in named:
        if name in found:
            raise node.bad(f"is the dialogue {name} for the second time")
        found.add(name)
        dialogues.append(Dialogue(name, _turns(name, node, gold)))
    if gold:
        gold.check()
    return dialogues


def _turns(name: str, node: Node, gold: GoldLabels | None) -> tuple[Utterance, ...]:
    sentences = node.get("sentences").items()
    if not sentences:
        raise node.get("sentences").bad("is empty: a dialogue has one utterance at least")
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
    items = node.get(key).items()
    if len(items) != length:
        raise node.get(key).bad(f"has {len(items)} items, `sentences` has {length}")
    return items


def _speaker(name: str, node: Node) -> str:
    session = NAMES.get(name[:5])
    if session is None:
        raise node.bad(f"is in dialogue {name}: IEMOCAP's begin with Ses01 to Ses05")
    if node.value not in ("F", "M"):
        raise node.bad("must be F or M")
    return session[node.value]


def _emotion(node: Node) -> str:
    """Return a label's name; the files hold its number."""
    if isinstance(node.value, str):
        return node.text()
    if type(node.value) is not int or not 0 <= node.value < len(IEMOCAP):
        raise node.bad(f"must be 0 to {len(IEMOCAP) - 1} ({', '.join(IEMOCAP)}) or a name")
    return IEMOCAP[node.value]


def _instructerc(text: str, file: str, labels: Sequence[str], read_labels: bool) -> list[Dialogue]:
    """Put the dialogues together again: a row with one turn only begins a new one."""
    gold = GoldLabels(labels, "target") if read_labels else None
    dialogues: list[list[Utterance]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        node = parse(line, Place(file, number))
        turns = _seen(node.get("input"))
        if len(turns) == 1:
            dialogues.append([])
        past = len(turns) - 1
        known = [(turn.speaker, turn.text) for turn in dialogues[-1]] if dialogues else []
        if past and known[-past:] != turns[:-1]:
            raise node.get("input").bad("does not go on from the line before")
        emotions = (gold.read(node.get("target").text(), node.place),) if gold else ()
        dialogues[-1].append(Utterance(*turns[-1], emotions))
    if gold:
        gold.check()
    return [Dialogue(str(i), tuple(turns)) for i, turns in enumerate(dialogues)]


def _seen(node: Node) -> list[tuple[str, str]]:
    """Return speaker and text of the turns that an InstructERC input shows, the target last."""
    value = node.value if isinstance(node.value, str) else ""
    body, asked, _ = value.partition(" ### Please select the emotional label of ")
    _, opened, shown = body.partition("involves several speakers. ### ")
    if not asked or not opened:
        raise node.bad("is not InstructERC's prompt for one utterance's emotion")
    turns = []
    for piece in shown.split("\t")[1:]:
        match = _TURN.fullmatch(piece)
        if match is None or not match[2].strip():
            raise node.bad(f"has an empty or broken turn: {shorten(piece.strip())}")
        turns.append((f"Speaker_{match[1]}", one_line(match[2])))
    if not turns:
        raise node.bad("shows no turn")
    return turns
