"""The input and the output of a stage's work."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from selfemo_api.contract import GenerationOutcome, StageConfig
from selfemo_api.metrics import PROGRESS_MESSAGE, ProgressField
from selfemo_api.results import ExpressionScore, SourceScore
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.manifest import (
    Manifest,
    Part,
    canonical_json,
    content_path,
    read_manifest,
)
from selfemo_jobs.runtime.whole_parts import are_whole
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
    expression: ExpressionScore | None = None
    """Evaluate only: how well the responder expresses emotions, where it plays."""
    model_uri: str | None = None
    """WarmStart and Train only: the folder of the trained model."""
    label_prior: dict[str, float] | None = None
    """Check only: the share of each emotion in the labeled sources, from 0 to 1."""
    outcome: GenerationOutcome | None = None
    """Publish only: the outcome of the generation."""
    report: dict[str, Any] = field(default_factory=dict)
    """What is too large for the termination message. It is stored in the manifest."""
    inputs: dict[str, str] = field(default_factory=dict)
    """The hashes that were given to :meth:`StageContext.with_inputs`. They are not stored: the
    labels of a source that the stage does not read must change no byte of its result."""


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
    wrote is not used. See :meth:`with_inputs`."""

    def with_inputs(self, inputs: Mapping[str, str]) -> StageContext:
        """Return a context whose settings also have the content of what the stage reads.

        A source or a model can change at its address between two attempts. What an attempt wrote
        before the change is then not used.

        Parameters
        ----------
        inputs
            The SHA-256 of each source and model that the result follows from, by its name. The
            stage's output has the same.
        """
        if not inputs:
            return self
        content = {"settings": self.settings, "inputs": dict(inputs)}
        return replace(self, settings=sha256(canonical_json(content)))

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
            The part's path below the stage's folder, without the hash of the content.
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
            The part's path below the stage's folder, without the hash of the content.
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
        uri = join(self.config.output, part.path)
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

        The hash of the content is in the name of the stored file. So an attempt that was believed
        to be dead cannot replace a part of the one that finished the stage.

        Parameters
        ----------
        path
            The part's path below the stage's folder, without the hash of the content.
        data
            The part's bytes.
        rows
            The number of rows of a table. None for other files.
        """
        digest = sha256(data)
        part = Part(path=content_path(path, digest), sha256=digest, size=len(data), rows=rows)
        self.store.put(join(self.config.output, part.path), data)
        self.put_record(f"parts/{path}.json", {"part": part.to_json()})
        return part

    def find_record(self, path: str) -> dict[str, Any] | None:
        """Return a record that an earlier attempt with the same settings wrote, or None.

        A record that is damaged counts as missing: what it is about is made again.

        Parameters
        ----------
        path
            The record's path below the stage's folder.
        """
        uri = join(self.config.output, path)
        try:
            record = json.loads(self.store.get(uri))
        except ObjectNotFound:
            return None
        except ValueError:
            log.warning("%s is damaged: what it is about is made again", uri)
            return None
        same = isinstance(record, dict) and record.get("settings") == self.settings
        return record if same else None

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
        """Return the output that a shard wrote with the same settings, or None.

        Where the stage repairs its result, an output whose parts are damaged counts as missing.
        """
        record = self.find_record(_shard_record(shard))
        if record is None:
            return None
        parts = [Part.model_validate(part) for part in record["parts"]]
        if self.config.repair and not are_whole(self.store, self.config.output, parts, self.work):
            return None
        return StageOutput(
            parts=parts,
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
        """Return the URI and the manifest of a parent stage. Raises DamagedFiles."""
        uri = self.config.parents[stage.slug]
        return uri, read_manifest(self.store, uri)[0]


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
