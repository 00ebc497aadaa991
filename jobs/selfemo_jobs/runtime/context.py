"""What a stage's work is given, and what it gives back."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from selfemo_api.contract import (
    ENV_WORK,
    StageConfig,
)
from selfemo_api.metrics import PROGRESS_MESSAGE, ProgressField
from selfemo_api.results import (
    SourceScore,
)
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.manifest import Manifest, Part, canonical, read_manifest
from selfemo_jobs.store import ObjectNotFound, Store, join
from selfemo_jobs.store.hashing import sha256

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class StageOutput:
    """What a stage (or one shard of it) made."""

    parts: list[Part] = field(default_factory=list)
    rows: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    scores: list[SourceScore] = field(default_factory=list)
    model_uri: str | None = None
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageContext:
    """What a stage's work is given."""

    config: StageConfig
    store: Store
    shard: int
    shards: int
    work: Path
    """Scratch folder of this stage; it outlives an attempt where the platform lets it."""
    settings: str = ""
    """Hash of all that the result follows from: what was made with other settings is made anew."""

    def progress(
        self, done: int, total: int, values: Mapping[ProgressField, float] | None = None
    ) -> None:
        """Write a progress line to the log; `selfemo run` and `selfemo watch` show it.

        Parameters
        ----------
        done, total
            Units of work: those that are done, and all.
        values
            Other fields of the line.
        """
        fields = {ProgressField.DONE: done, ProgressField.TOTAL: total, **(values or {})}
        log.info(PROGRESS_MESSAGE, extra={"fields": fields})

    def find_part(self, path: str) -> Part | None:
        """Return a part that an earlier attempt finished with the same settings, or None."""
        found = self.find_record(f"parts/{path}.json")
        return Part.model_validate(found["part"]) if found else None

    def load_part(self, path: str, decode: Callable[[bytes], T]) -> tuple[Part, T] | None:
        """Return a part that an earlier attempt finished with the same settings, and its content.

        A part that is missing or damaged, though its record is there, is not used: the stage makes
        it again. The log then has a warning.

        Parameters
        ----------
        path
            The part's path below the stage's folder.
        decode
            Reads the content from the part's bytes. It is called only if their hash is right.

        Returns
        -------
        tuple of Part and content, or None
            None where the part has to be made.
        """
        part = self.find_part(path)
        if part is None:
            return None
        uri = join(self.config.output, path)
        try:
            data = self.store.get(uri)
        except ObjectNotFound:
            data = b""
        if sha256(data) != part.sha256:
            log.warning("%s does not match its record: it is made again", uri)
            return None
        return part, decode(data)

    def put_part(self, path: str, data: bytes, rows: int | None = None) -> Part:
        """Write a part and then its record, from which a later attempt knows that it is whole."""
        part = Part(path=path, sha256=sha256(data), size=len(data), rows=rows)
        self.store.put(join(self.config.output, path), data)
        self.put_record(f"parts/{path}.json", {"part": part.to_json()})
        return part

    def find_record(self, path: str) -> dict[str, Any] | None:
        """Return what an earlier attempt with the same settings noted for the next, or None."""
        try:
            found = json.loads(self.store.get(join(self.config.output, path)))
        except ObjectNotFound:
            return None
        return found if found["settings"] == self.settings else None

    def put_record(self, path: str, record: dict[str, Any]) -> None:
        """Note something for a later attempt (or, of shards, for the others)."""
        noted = {**record, "settings": self.settings}
        self.store.put(join(self.config.output, path), canonical(noted))

    def find_output(self, shard: int) -> StageOutput | None:
        """Return what a shard made with the same settings, or None."""
        found = self.find_record(_shard_record(shard))
        if found is None:
            return None
        return StageOutput(
            parts=[Part.model_validate(part) for part in found["parts"]],
            rows=found["rows"],
            metrics=found["metrics"],
            model_uri=join(self.config.output, found["model"]) if found["model"] else None,
            report=found["report"],
        )

    def put_output(self, output: StageOutput) -> None:
        """Note what this shard made."""
        record = {
            "parts": [p.to_json() for p in output.parts],
            "rows": output.rows,
            "metrics": output.metrics,
            "report": output.report,
            "model": path_below(self.config.output, output.model_uri),
        }
        self.put_record(_shard_record(self.shard), record)

    def parent(self, stage: Stage) -> tuple[str, Manifest]:
        """Return the URI and the manifest of a parent stage."""
        uri = self.config.parents[stage.slug]
        return uri, read_manifest(self.store, uri)[0]


def work_folder(config: StageConfig) -> Path:
    """Return (and make) the stage's scratch folder."""
    base = Path(os.environ.get(ENV_WORK) or Path.cwd() / ".selfemo-work")
    folder = base / f"{config.generation:03d}-{config.stage.slug}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _shard_record(shard: int) -> str:
    return f"shards/{shard:05d}.json"


def path_below(folder: str, uri: str | None) -> str | None:
    """Return a URI relative to a folder above it; None stays None."""
    return uri.removeprefix(folder.rstrip("/") + "/") if uri else None
