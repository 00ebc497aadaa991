"""Reads a few groups of self-play: examples of one generation, and replies of two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from selfemo_api.stages import Stage
from selfemo_jobs.runtime.manifest import read_part
from selfemo_jobs.runtime.run_reader import StageRecord
from selfemo_jobs.store import Store, join

#: Groups shown for each role: the best, the middle one and the worst by mean reward.
_SAMPLES = 3
#: Pairs of replies that are shown, and parts of each table in which they are looked for.
_REPLIES, _REPLY_PARTS = 4, 4
#: Columns that the report does not use. They are the largest part of the table.
_TOKEN_COLUMNS = {"prompt_ids", "completion_ids", "logprobs", "views"}


@dataclass(frozen=True)
class Candidate:
    """One completion of a group."""

    text: str
    labels: tuple[str, ...]
    """The emotions that the completion names; empty for a responder."""
    reward: float
    advantage: float
    chosen: bool
    """Whether self-play appended this response to the dialogue."""
    well_formed: bool


@dataclass(frozen=True)
class Sample:
    """One scored group of self-play."""

    role: str
    generation: int
    dialogue: str
    """The source and the id of the dialogue."""
    utterance: int
    """The index of the target utterance within the dialogue."""
    context: tuple[tuple[str, str], ...]
    """Speaker and text of each turn before, oldest first."""
    speaker: str
    """Who speaks the target utterance, or the response."""
    target: str | None
    """The utterance to recognize; None for a responder."""
    intended: tuple[str, ...]
    """The emotions that the responder must express; empty for a recognizer."""
    consensus: tuple[str, ...]
    """The emotions of the group's consensus; empty for a responder."""
    consistency: float
    candidates: tuple[Candidate, ...]

    @property
    def reward(self) -> float:
        """The mean reward of the group."""
        return sum(c.reward for c in self.candidates) / len(self.candidates)


@dataclass(frozen=True)
class Reply:
    """The response that self-play appended to a dialogue."""

    generation: int
    intended: tuple[str, ...]
    """The emotions that the response was to express."""
    text: str
    reward: float


@dataclass(frozen=True)
class ReplyPair:
    """The responses of two generations at the same place of a dialogue."""

    dialogue: str
    """The source and the id of the dialogue."""
    context: tuple[tuple[str, str], ...]
    """Speaker and text of each turn before, oldest first."""
    speaker: str
    """Who responds."""
    first: Reply
    last: Reply


def read_samples(store: Store, records: Iterable[StageRecord]) -> list[Sample]:
    """Return a few groups of the last scored generation: the best, one in the middle, the worst.

    Only the first part of the table is read, so that a large run takes no longer than a small one.

    Parameters
    ----------
    store
        The store that contains the run.
    records
        The finished stages of the run in order.

    Raises
    ------
    BadInput
        If the part does not match its manifest, or is not a table of candidates.
    """
    scored = [r for r in records if r.manifest.stage is Stage.SCORE]
    if not scored:
        return []
    samples = list(_groups(store, scored[-1], parts=1))
    roles = sorted({sample.role for sample in samples})
    return [s for role in roles for s in _spread([s for s in samples if s.role == role])]


def read_replies(store: Store, records: Iterable[StageRecord]) -> list[ReplyPair]:
    """Return replies of the first and of the last scored generation, to the same turns.

    Pairs with the same intended emotion are preferred. Only the first parts of both tables are
    read.

    Parameters
    ----------
    store
        The store that contains the run.
    records
        The finished stages of the run in order.

    Returns
    -------
    list of ReplyPair
        Empty if fewer than two generations were scored, their tables are not stored any more, or
        they have no response in common.

    Raises
    ------
    BadInput
        If a part does not match its manifest, or is not a table of candidates.
    """
    scored = [r for r in records if r.manifest.stage is Stage.SCORE]
    if len(scored) < 2:
        return []
    first, last = (
        {
            (sample.dialogue, sample.utterance, sample.context): sample
            for sample in _groups(store, record, parts=_REPLY_PARTS, only_stored=True)
            if sample.target is None
        }
        for record in (scored[0], scored[-1])
    )
    pairs = [
        ReplyPair(
            dialogue=sample.dialogue,
            context=sample.context,
            speaker=sample.speaker,
            first=_reply(sample),
            last=_reply(last[key]),
        )
        for key, sample in sorted(first.items())
        if key in last
    ]
    pairs.sort(key=lambda pair: pair.first.intended != pair.last.intended)
    return pairs[:_REPLIES]


def _reply(sample: Sample) -> Reply:
    """Return the response of a group that was appended; otherwise the one with most reward."""
    candidate = max(sample.candidates, key=lambda c: (c.chosen, c.reward))
    return Reply(sample.generation, sample.intended, candidate.text, candidate.reward)


def _groups(
    store: Store, record: StageRecord, *, parts: int, only_stored: bool = False
) -> Iterator[Sample]:
    """Yield the groups in the first parts of a scored table, in the order of their ids.

    Parameters
    ----------
    store
        The store that contains the run.
    record
        The record of the stage Score.
    parts
        The largest number of parts to read.
    only_stored
        Whether parts that are missing are skipped. Otherwise they are an error.
    """
    from selfemo_jobs.runtime.schemas import SCORED
    from selfemo_jobs.runtime.tables import decode_table

    tables = [p for p in record.manifest.parts if p.path.endswith(".parquet") and p.rows]
    columns = [name for name in SCORED.names if name not in _TOKEN_COLUMNS]
    folder = record.uri.rsplit("/", 1)[0]
    groups: dict[str, list[dict[str, Any]]] = {}
    for part in tables[:parts]:
        if only_stored and not store.exists(join(folder, part.path)):
            continue
        table = decode_table(read_part(store, record.uri, part), record.uri, SCORED)
        for row in table.select(columns).to_pylist():
            groups.setdefault(row["group_id"], []).append(row)
    for name in sorted(groups):
        yield _sample(groups[name])


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """Return a few samples at even distances between the highest and the lowest mean reward."""
    ordered = sorted(samples, key=lambda s: -s.reward)
    last = len(ordered) - 1
    count = min(_SAMPLES, len(ordered))
    return [ordered[round(i * last / max(count - 1, 1))] for i in range(count)]


def _sample(rows: Sequence[dict[str, Any]]) -> Sample:
    """Return the sample of one group, from the rows of its candidates."""
    rows = sorted(rows, key=lambda row: row["member"])
    first = rows[0]
    return Sample(
        role=first["role"],
        generation=first["generation"],
        dialogue=f"{first['source']}/{first['dialogue_id']}",
        utterance=first["utterance"],
        context=tuple((turn["speaker"], turn["text"]) for turn in first["context"]),
        speaker=first["speaker"],
        target=first["target"],
        intended=tuple(first["intended"] or ()),
        consensus=tuple(first["consensus"]) if first["target"] is not None else (),
        consistency=first["consistency"],
        candidates=tuple(
            Candidate(
                text=row["completion"],
                labels=tuple(row["labels"] or ()),
                reward=row["reward"],
                advantage=row["advantage"],
                chosen=row["chosen"],
                well_formed=row["well_formed"],
            )
            for row in rows
        ),
    )
