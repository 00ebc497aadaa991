"""Reads what a run has written: its manifests, their times, and a few groups to show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_jobs.runtime.manifest import Manifest, read_manifest, read_part
from selfemo_jobs.store import ObjectNotFound, Store, join

_PLACE = re.compile(r"/generations/(\d{3})/([a-z]+)/manifest\.json$")
_STAGES = {stage.slug: stage for stage in Stage}
#: Groups shown for each role: the best, the middle one and the worst by mean reward.
_SHOWN = 3
#: Columns that nobody reads, and the most of the table.
_TOKENS = {"prompt_ids", "completion_ids", "logprobs"}


@dataclass(frozen=True)
class StageRecord:
    """One finished stage."""

    uri: str
    manifest: Manifest
    sha256: str
    seconds: float | None = None
    """Wall time of the attempt that finished it; None where that was not kept."""

    @property
    def key(self) -> tuple[int, int]:
        """Its place in the run's order."""
        return self.manifest.generation, STAGE_ORDER.index(self.manifest.stage)


@dataclass(frozen=True)
class Candidate:
    """One completion of a group."""

    text: str
    labels: tuple[str, ...]
    reward: float
    advantage: float
    chosen: bool
    well_formed: bool


@dataclass(frozen=True)
class Sample:
    """One group of self-play, scored."""

    role: str
    generation: int
    dialogue: str
    context: tuple[tuple[str, str], ...]
    """Speaker and text, oldest first."""
    speaker: str
    target: str | None
    intended: tuple[str, ...]
    consensus: tuple[str, ...]
    consistency: float
    candidates: tuple[Candidate, ...]

    @property
    def reward(self) -> float:
        """Mean reward of the group."""
        return sum(c.reward for c in self.candidates) / len(self.candidates)


def read_records(store: Store, run: str) -> list[StageRecord]:
    """Return a run's finished stages in order.

    Parameters
    ----------
    store
        Where the run is.
    run
        URI of the run's folder, ``<storage>/<namespace>/<name>-<uid8>``.

    Raises
    ------
    BadInput
        If a manifest is not one of this version.
    """
    records = []
    for info in store.list(join(run, "generations")):
        place = _PLACE.search(info.uri.removeprefix(run.rstrip("/")))
        if place and place.group(2) in _STAGES:
            manifest, digest = read_manifest(store, info.uri)
            records.append(StageRecord(info.uri, manifest, digest, _seconds(store, info.uri)))
    return sorted(records, key=lambda record: record.key)


def read_samples(store: Store, records: Iterable[StageRecord]) -> list[Sample]:
    """Return a few groups of the last scored generation: the best, a middling and the worst.

    Only the first part of the table is read, so that a large run takes no longer than a small one.

    Raises
    ------
    BadInput
        If the part does not match its manifest, or is no table of candidates.
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
    shown = [
        name for name in SCORED.names if name not in {"prompt_ids", "completion_ids", "logprobs"}
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in table.select(shown).to_pylist():
        groups.setdefault(row["group_id"], []).append(row)
    samples = [_sample(groups[name]) for name in sorted(groups)]
    roles = sorted({sample.role for sample in samples})
    return [s for role in roles for s in _spread([s for s in samples if s.role == role])]


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """Return a few samples spread from the highest mean reward to the lowest."""
    ordered = sorted(samples, key=lambda s: -s.reward)
    last = len(ordered) - 1
    count = min(_SHOWN, len(ordered))
    return [ordered[round(i * last / max(count - 1, 1))] for i in range(count)]


def _sample(rows: Sequence[dict[str, Any]]) -> Sample:
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
    try:
        value = json.loads(store.get(join(uri.rsplit("/", 1)[0], "run.json")))
        return float(value["seconds"])
    except (ObjectNotFound, ValueError, KeyError, TypeError):
        return None  # nothing depends on it
