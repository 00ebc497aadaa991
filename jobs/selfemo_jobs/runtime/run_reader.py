"""Reads the manifests of a run, and the record beside each: times and machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from selfemo_api.contract import GenerationOutcome
from selfemo_api.stages import STAGE_ORDER, Stage
from selfemo_jobs.runtime.manifest import Manifest, read_manifest
from selfemo_jobs.runtime.run_record import RUN_RECORD
from selfemo_jobs.store import ObjectNotFound, Store, join

#: The name of the report in the run's folder.
REPORT_FILE = "report.html"
#: The path of a manifest below the run's folder: generation and stage.
_MANIFEST = re.compile(r"/generations/(\d{3})/([a-z]+)/manifest\.json$")
_STAGES = {stage.slug: stage for stage in Stage}


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
    finished: float | None = None
    """When the stage finished, in seconds since 1970; None if it was not stored."""
    gpus: int | None = None
    """The number of GPUs of all pods of the stage; None if it was not stored."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """What the stage ran on: ``processor``, ``cores`` and ``gpus``. Empty if it was not stored."""

    @property
    def key(self) -> tuple[int, int]:
        """The generation and the index of the stage, by which a run is ordered."""
        return self.manifest.generation, STAGE_ORDER.index(self.manifest.stage)


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
            records.append(_with_run_record(store, StageRecord(info.uri, manifest, digest)))
    return sorted(records, key=lambda record: record.key)


def recorded_outcomes(records: Iterable[StageRecord]) -> dict[int, GenerationOutcome]:
    """Return the outcome of each published generation, as Publish stored it.

    The status has those of the last generations alone. A run that an earlier version published has
    none here.

    Parameters
    ----------
    records
        The finished stages of the run.
    """
    return {
        record.manifest.generation: record.manifest.outcome
        for record in records
        if record.manifest.outcome is not None
    }


def _with_run_record(store: Store, record: StageRecord) -> StageRecord:
    """Return a record with times and machine, as far as they are stored beside the manifest."""
    try:
        values = json.loads(store.get(join(record.uri.rsplit("/", 1)[0], RUN_RECORD)))
    except (ObjectNotFound, ValueError):
        return record  # it is for people: all else is complete without it
    if not isinstance(values, dict):
        return record
    gpus, machine = values.get("gpus"), values.get("machine")
    return replace(
        record,
        seconds=_number(values.get("seconds")),
        finished=_number(values.get("finishedTime")),
        gpus=gpus if isinstance(gpus, int) else None,
        machine=machine if isinstance(machine, dict) else {},
    )


def _number(value: object) -> float | None:
    """Return a value as a number; None if it is not one."""
    return float(value) if isinstance(value, int | float) else None
