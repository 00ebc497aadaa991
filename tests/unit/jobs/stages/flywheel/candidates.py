"""Builds small scored groups for the tests of the flywheel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from selfemo_api.stages import Stage
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, Part
from selfemo_jobs.runtime.schemas import SCORED
from selfemo_jobs.runtime.tables import encode_table
from selfemo_jobs.store.hashing import sha256

RECOGNIZER, RESPONDER = "Recognizer", "Responder"


@dataclass(frozen=True)
class Group:
    """One group. By default it is reliable and differs from every other group."""

    id: str
    role: str = RECOGNIZER
    label: str | tuple[str, ...] | None = "joy"
    rewards: tuple[float, ...] = (0.9, 0.5)
    confidence: float = 1.0
    consistency: float = 0.8
    advantages: tuple[float, ...] | None = None
    prompt: tuple[int, ...] | None = None
    completions: tuple[tuple[int, ...], ...] | None = None
    texts: tuple[str, ...] | None = None
    generation: int = 1
    gold: tuple[str, ...] | None = None

    @property
    def emotions(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label or ()

    def rows(self) -> list[dict[str, Any]]:
        size = len(self.rewards)
        own = tuple(self.id.encode())
        mean = sum(self.rewards) / size
        completions = self.completions or tuple((i, *own) for i in range(size))
        texts = self.texts or tuple(f"{self.id} says {self.id} and {i}" for i in range(size))
        advantages = self.advantages or tuple(r - mean for r in self.rewards)
        return [
            {
                "group_id": self.id,
                "role": self.role,
                "generation": self.generation,
                "source": "demo",
                "dialogue_id": "d1",
                "utterance": 3,
                "turn": 0,
                "member": member,
                "context": [{"speaker": "Ann", "text": "Hello."}],
                "speaker": "Bob",
                "target": None if self.role == RESPONDER else "Hi.",
                "prompt_ids": self.prompt or own,
                "completion_ids": completions[member],
                "logprobs": [-0.5] * len(completions[member]),
                "gold": self.gold,
                "views": [],
                "completion": texts[member],
                "well_formed": True,
                "finished": True,
                "chosen": member == 0,
                "consensus": self.emotions,
                "alignment": 0.5,
                "agreement": 0.5,
                "format": 1.0,
                "penalty": 0.0,
                "reward": self.rewards[member],
                "confidence": self.confidence,
                "consistency": self.consistency,
                "advantage": advantages[member],
            }
            for member in range(size)
        ]


def table(groups: Iterable[Group]) -> pa.Table:
    """Return the groups' rows in the order given."""
    return pa.Table.from_pylist([row for g in groups for row in g.rows()], schema=SCORED)


def write_stage(
    folder: Path, tables: Sequence[pa.Table], stage: Stage = Stage.SCORE, generation: int = 1
) -> str:
    """Write parts and a manifest as a stage does, and return the URI of the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for index, rows in enumerate(tables):
        data = encode_table(rows)
        name = f"part-{index:05d}.parquet"
        (folder / name).write_bytes(data)
        parts.append(Part(path=name, sha256=sha256(data), size=len(data), rows=rows.num_rows))
    manifest = Manifest(
        run="default/demo-00000000",
        stage=stage,
        generation=generation,
        seed=1,
        config_sha256="0" * 64,
        config={},
        parts=parts,
        rows=sum(rows.num_rows for rows in tables),
    )
    (folder / MANIFEST).write_bytes(manifest.encode())
    return f"file://{folder}/{MANIFEST}"
