"""Reads the manifests of a run, the duration of its stages, and a few groups of self-play."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_jobs.runtime.manifest import Manifest, read_manifest, read_part
from selfemo_jobs.store import ObjectNotFound, Store, join

#: The path of a manifest below the run's folder: generation and stage.
_MANIFEST = re.compile(r"/generations/(\d{3})/([a-z]+)/manifest\.json$")
_STAGES = {stage.slug: stage for stage in Stage}
#: Groups shown for each role: the best, the middle one and the worst by mean reward.
_SAMPLES = 3
#: Columns that the report does not use. They are the largest part of the table.
_TOKEN_COLUMNS = {"prompt_ids", "completion_ids", "logprobs"}


@dataclass(frozen=True)
class StageRecord:
    """One finished stage."""

    uri: str
    """The URI of the manifest."""
    manifest: Manifest
    sha256: str
    """The SHA-256 of the manifest, in hexadecimal digits."""
    seconds: float | None = None
    """The wall time of the attempt that finished the stage; None if it was not stored."""

    @property
    def key(self) -> tuple[int, int]:
        """The generation and the index of the stage, by which a run is ordered."""
        return self.manifest.generation, STAGE_ORDER.index(self.manifest.stage)


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


def read_records(store: Store, run: str) -> list[StageRecord]:
    """Return the finished stages of a run in order.

    Parameters
    ----------
    store
        The store that contains the run.
    run
        The URI of the run's folder, ``<storage>/<namespace>/<name>-<uid8>``.

    Raises
    ------
    BadInput
        If a manifest was not written by this version.
    """
    records = []
    for info in store.list(join(run, "generations")):
        match = _MANIFEST.search(info.uri.removeprefix(run.rstrip("/")))
        if match and match.group(2) in _STAGES:
            manifest, digest = read_manifest(store, info.uri)
            records.append(StageRecord(info.uri, manifest, digest, _seconds(store, info.uri)))
    return sorted(records, key=lambda record: record.key)


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
    record = scored[-1]
    part = next((p for p in record.manifest.parts if p.path.endswith(".parquet") and p.rows), None)
    if part is None:
        return []
    from selfemo_jobs.runtime.schemas import SCORED
    from selfemo_jobs.runtime.tables import decode_table

    table = decode_table(read_part(store, record.uri, part), record.uri, SCORED)
    columns = [name for name in SCORED.names if name not in _TOKEN_COLUMNS]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table.select(columns).to_pylist():
        groups.setdefault(row["group_id"], []).append(row)
    samples = [_sample(groups[name]) for name in sorted(groups)]
    roles = sorted({sample.role for sample in samples})
    return [s for role in roles for s in _spread([s for s in samples if s.role == role])]


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


def _seconds(store: Store, uri: str) -> float | None:
    """Return the duration of a stage, which is stored beside its manifest; None without it."""
    try:
        value = json.loads(store.get(join(uri.rsplit("/", 1)[0], "run.json")))
        return float(value["seconds"])
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return None  # the report is complete without it
