"""What a generation answers better and worse than the baseline, with examples. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from selfemo_jobs.report.answer_reader import Answers, Turns
from selfemo_jobs.store.hashing import sha256

#: Examples of each list, and turns that are shown before an utterance.
_EXAMPLES, _CONTEXT = 6, 3
#: Answers of this probability or more are confident: such a model should err once in ten at most.
CONFIDENT = 0.9
#: The most confident mistakes with the same confusion. One confusion would fill the list otherwise.
_SAME_CONFUSION = 2


@dataclass(frozen=True)
class Example:
    """One utterance with the answers of the baseline and of a later generation."""

    dialogue: str
    utterance: int
    """The index of the utterance within its dialogue."""
    context: Turns
    """Speaker and text of the turns before, oldest first."""
    speaker: str
    text: str
    gold: tuple[str, ...]
    """The labels of the utterance that count."""
    before: tuple[str, ...]
    """The labels that the baseline answered."""
    after: tuple[str, ...]
    """The labels that the later generation answered."""
    agreement: int = 0
    """The number of generations that gave the answer of the later generation."""
    probability: float | None = None
    """The probability of the later generation's answer, from 0 to 1. None: it is not stored."""


@dataclass(frozen=True)
class LabelChange:
    """How the answers about the utterances of one label changed."""

    label: str
    utterances: int
    """The number of utterances that have the label as their first one."""
    fixed: int
    """The number of them whose answer became right."""
    broken: int
    """The number of them whose answer became wrong."""


@dataclass(frozen=True)
class AnswerChanges:
    """The answers of a generation beside those of the baseline, on one source."""

    generation: int
    source: str
    both_right: int
    fixed_count: int
    broken_count: int
    both_wrong: int
    by_label: tuple[LabelChange, ...]
    """The changes by label, the most frequent label first."""
    fixed: tuple[Example, ...] = ()
    """Answers that were wrong in generation 0 and are right."""
    broken: tuple[Example, ...] = ()
    """Answers that were right in generation 0 and are wrong."""
    mistakes: tuple[Example, ...] = ()
    """Mistakes that every evaluated generation makes in the same way."""
    mistakes_count: int = 0
    """The number of such mistakes."""
    generations: int = 0
    """The number of evaluated generations whose answers are stored."""
    confident_mistakes: tuple[Example, ...] = ()
    """Wrong answers with the largest probabilities, largest first."""
    confident_count: int = 0
    """The number of answers with a probability of :data:`CONFIDENT` or more."""
    confident_mistakes_count: int = 0
    """The number of wrong ones among them."""


def answer_changes(
    answers: Answers, generation: int, source: str, *, sets: bool
) -> AnswerChanges | None:
    """Return what a generation fixed and broke, compared with generation 0.

    Parameters
    ----------
    answers
        The stored answers.
    generation
        The generation, 1 or more.
    source
        The name of the evaluation source.
    sets
        Whether the labels of an utterance are compared as a set. Otherwise the first label counts.

    Returns
    -------
    AnswerChanges or None
        None if the answers are not stored, or are about different utterances. The examples are
        empty if the dialogues are not stored.
    """
    first, last = answers.tables.get((0, source)), answers.tables.get((generation, source))
    if generation == 0 or first is None or last is None or not _same_utterances(first, last):
        return None
    others = [
        table
        for (_, name), table in sorted(answers.tables.items(), key=lambda item: item[0])
        if name == source and _same_utterances(first, table)
    ]
    turns = answers.dialogues.get(source, {})
    rows = list(_rows(first, last, others, turns, sets=sets))
    fixed = [r for r in rows if not _is_right(r.gold, r.before) and _is_right(r.gold, r.after)]
    broken = [r for r in rows if _is_right(r.gold, r.before) and not _is_right(r.gold, r.after)]
    right = sum(_is_right(r.gold, r.after) for r in rows)
    wrong = [r for r in rows if not _is_right(r.gold, r.after)]
    mistakes = [r for r in wrong if r.agreement == len(others)]
    confident = [r for r in rows if (r.probability or 0.0) >= CONFIDENT]
    return AnswerChanges(
        generation=generation,
        source=source,
        both_right=right - len(fixed),
        fixed_count=len(fixed),
        broken_count=len(broken),
        both_wrong=len(wrong) - len(broken),
        by_label=_by_label(rows, fixed, broken),
        fixed=_spread(fixed, lambda r: r.gold[:1]),
        broken=_spread(broken, lambda r: r.gold[:1]),
        mistakes=_spread(mistakes, lambda r: (r.gold[:1], r.after[:1])),
        mistakes_count=len(mistakes),
        generations=len(others),
        confident_mistakes=_most_confident(wrong),
        confident_count=len(confident),
        confident_mistakes_count=sum(not _is_right(r.gold, r.after) for r in confident),
    )


def _same_utterances(first: pa.Table, second: pa.Table) -> bool:
    """Return whether two tables are about the same utterances, with the same gold labels."""
    shared = ["dialogue_id", "utterance", "gold"]
    return bool(first.select(shared).equals(second.select(shared)))


def _rows(
    first: pa.Table,
    last: pa.Table,
    others: Sequence[pa.Table],
    dialogues: Mapping[str, Turns],
    *,
    sets: bool,
) -> Iterator[Example]:
    """Yield each utterance with both answers."""

    def counted(labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(labels) if sets else tuple(labels[:1])

    predicted = [table["predicted"].to_pylist() for table in others]
    answers = zip(last["predicted"].to_pylist(), last["probability"].to_pylist(), strict=True)
    for index, (before, (after, probability)) in enumerate(
        zip(first.to_pylist(), answers, strict=True)
    ):
        turns = dialogues.get(before["dialogue_id"], ())
        place = before["utterance"]
        speaker, text = turns[place] if place < len(turns) else ("", "")
        answer = counted(after)
        yield Example(
            dialogue=before["dialogue_id"],
            utterance=place,
            context=turns[max(0, place - _CONTEXT) : place],
            speaker=speaker,
            text=text,
            gold=counted(before["gold"]),
            before=counted(before["predicted"]),
            after=answer,
            agreement=sum({*counted(labels[index])} == {*answer} for labels in predicted),
            probability=probability,
        )


def _is_right(gold: Sequence[str], answer: Sequence[str]) -> bool:
    """Return whether an answer has exactly the labels that count."""
    return {*gold} == {*answer}


def _by_label(
    rows: Sequence[Example], fixed: Sequence[Example], broken: Sequence[Example]
) -> tuple[LabelChange, ...]:
    """Return the changes by the first gold label, the most frequent label first."""
    counts, better, worse = (Counter(r.gold[0] for r in part) for part in (rows, fixed, broken))
    return tuple(
        LabelChange(label, count, better[label], worse[label])
        for label, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _spread(rows: Sequence[Example], kind: Callable[[Example], Any]) -> tuple[Example, ...]:
    """Return a few examples with a text, one of each kind in turn, the most frequent kind first.

    Within a kind, the order is that of a hash: the same for each report of the run, and not that of
    the file, whose first dialogues may be alike.
    """
    kinds: dict[Any, list[Example]] = {}
    for row in rows:
        if row.text:
            kinds.setdefault(kind(row), []).append(row)
    for members in kinds.values():
        members.sort(key=lambda r: sha256(f"{r.dialogue}/{r.utterance}".encode()))
    queues = [members for _, members in sorted(kinds.items(), key=lambda i: (-len(i[1]), i[0]))]
    chosen: list[Example] = []
    for rank in range(max(map(len, queues), default=0)):
        chosen += [members[rank] for members in queues if rank < len(members)]
    return tuple(chosen[:_EXAMPLES])


def _most_confident(wrong: Sequence[Example]) -> tuple[Example, ...]:
    """Return the wrong answers with a text that have the largest probabilities, largest first."""
    confusions: Counter[Any] = Counter()
    chosen: list[Example] = []
    known = [row for row in wrong if row.text and row.probability is not None]
    for row in sorted(known, key=lambda r: (-(r.probability or 0.0), r.dialogue, r.utterance)):
        confusion = (row.gold, row.after)
        if confusions[confusion] < _SAME_CONFUSION:
            confusions[confusion] += 1
            chosen.append(row)
    return tuple(chosen[:_EXAMPLES])
