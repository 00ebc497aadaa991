"""The input and the output of a stage's work."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from selfemo_api.contract import ENV_WORK, StageConfig
from selfemo_api.metrics import PROGRESS_MESSAGE, ProgressField
from selfemo_api.results import SourceScore
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.manifest import Manifest, Part, canonical_json, read_manifest
from selfemo_jobs.store import ObjectNotFound, Store, join
from selfemo_jobs.store.hashing import sha256

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class StageOutput:
    """The result of a stage, or of one shard of it."""

    parts: list[Part] = field(default_factory=list)
    """The files that were written."""
    rows: int = 0
    """The number of rows in the tables."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The metrics of the termination message."""
    scores: list[SourceScore] = field(default_factory=list)
    """Evaluate only: a score of each source."""
    model_uri: str | None = None
    """WarmStart and Train only: the folder of the trained model."""
    label_prior: dict[str, float] | None = None
    """Check only: the share of each emotion in the labeled sources, from 0 to 1."""
    report: dict[str, Any] = field(default_factory=dict)
    """What is too large for the termination message. It is stored in the manifest."""


@dataclass(frozen=True)
class StageContext:
    """The configuration, the storage and the scratch folder of a stage."""

    config: StageConfig
    store: Store
    shard: int
    """The number of this shard, from 0."""
    shards: int
    """The number of shards."""
    work: Path
    """The scratch folder of the stage. It outlives an attempt where the platform allows it."""
    settings: str = ""
    """The hash of all settings that the result follows from. What an attempt with other settings
    wrote is not used."""

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
        """Return the record of a part that an earlier attempt with the same settings wrote.

        Parameters
        ----------
        path
            The part's path below the stage's folder.
        """
        record = self.find_record(f"parts/{path}.json")
        return Part.model_validate(record["part"]) if record else None

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
        """Write a part, and then its record. The record tells a later attempt that it is whole.

        Parameters
        ----------
        path
            The part's path below the stage's folder.
        data
            The part's bytes.
        rows
            The number of rows of a table. None for other files.
        """
        part = Part(path=path, sha256=sha256(data), size=len(data), rows=rows)
        self.store.put(join(self.config.output, path), data)
        self.put_record(f"parts/{path}.json", {"part": part.to_json()})
        return part

    def find_record(self, path: str) -> dict[str, Any] | None:
        """Return a record that an earlier attempt with the same settings wrote, or None.

        Parameters
        ----------
        path
            The record's path below the stage's folder.
        """
        try:
            record: dict[str, Any] = json.loads(self.store.get(join(self.config.output, path)))
        except ObjectNotFound:
            return None
        return record if record["settings"] == self.settings else None

    def put_record(self, path: str, record: dict[str, Any]) -> None:
        """Write a record for a later attempt, or for the other shards.

        Parameters
        ----------
        path
            The record's path below the stage's folder.
        record
            A JSON object. The key ``settings`` is added to it.
        """
        data = canonical_json({**record, "settings": self.settings})
        self.store.put(join(self.config.output, path), data)

    def find_output(self, shard: int) -> StageOutput | None:
        """Return the output that a shard wrote with the same settings, or None."""
        record = self.find_record(_shard_record(shard))
        if record is None:
            return None
        return StageOutput(
            parts=[Part.model_validate(part) for part in record["parts"]],
            rows=record["rows"],
            metrics=record["metrics"],
            model_uri=join(self.config.output, record["model"]) if record["model"] else None,
            report=record["report"],
        )

    def put_output(self, output: StageOutput) -> None:
        """Write this shard's output, for the shard that merges all of them."""
        record = {
            "parts": [p.to_json() for p in output.parts],
            "rows": output.rows,
            "metrics": output.metrics,
            "report": output.report,
            "model": relative_path(self.config.output, output.model_uri),
        }
        self.put_record(_shard_record(self.shard), record)

    @property
    def run_uri(self) -> str:
        """The URI of the run's folder in the storage."""
        return join(self.config.spec.storage.uri, self.config.run)

    def parent(self, stage: Stage) -> tuple[str, Manifest]:
        """Return the URI and the manifest of a parent stage. Raises BadInput."""
        uri = self.config.parents[stage.slug]
        return uri, read_manifest(self.store, uri)[0]


def scratch_folder() -> Path:
    """Return the scratch folder of all stages, which need not exist."""
    return Path(os.environ.get(ENV_WORK) or Path.cwd() / ".selfemo-work")


def work_folder(config: StageConfig) -> Path:
    """Return the stage's scratch folder, which is made where it does not exist."""
    folder = scratch_folder() / f"{config.generation:03d}-{config.stage.slug}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _shard_record(shard: int) -> str:
    return f"shards/{shard:05d}.json"


def relative_path(folder: str, uri: str | None) -> str | None:
    """Return the path of a URI below a folder's URI; None for None.

    Examples
    --------
    >>> relative_path("s3://bucket/run/train", "s3://bucket/run/train/model")
    'model'
    """
    return uri.removeprefix(folder.rstrip("/") + "/") if uri else None
