"""Writes a run's figures to the trackers of its spec, at the end of each generation.

A tracker never ends a run. If it cannot be reached, the stage goes on, and the next generation
writes what is missing: all points follow from the manifests in the storage.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from selfemo_api.contract import ENV_PARENT, GenerationOutcome
from selfemo_api.spec import Tracker
from selfemo_api.stages import Stage
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import canonical_json
from selfemo_jobs.runtime.run_reader import (
    REPORT_FILE,
    StageRecord,
    read_records,
    recorded_outcomes,
)
from selfemo_jobs.store import ObjectNotFound, Store, join
from selfemo_jobs.trackers.points import (
    TrackedGeneration,
    TrackedRun,
    generation_points,
    training_steps,
)
from selfemo_jobs.trackers.settings import flat_settings, run_tags
from selfemo_jobs.trackers.worker import TrackerResult, WorkerJob

log = logging.getLogger(__name__)

#: Seconds that each tracker has. A tool's own retries of a request are shorter.
WORKER_SECONDS = 120.0
#: The file in the run's folder that has the identity of the run in all trackers.
IDENTITY = "trackers.json"
#: The folder of TensorBoard's files in the run's folder.
TENSORBOARD = "tensorboard"


def track_generation(context: StageContext) -> dict[Tracker, TrackerResult]:
    """Write all generations that a tracker does not have yet to each tracker of the spec.

    Parameters
    ----------
    context
        The context of the stage Publish. The report, if it is in the run's folder, is written too.

    Returns
    -------
    dict of Tracker to TrackerResult
        How many points each tracker got, or why it got none. Empty without trackers.

    Raises
    ------
    Unavailable
        If the storage cannot be reached. A tracker that cannot be reached raises nothing.
    """
    trackers = list(dict.fromkeys(context.config.spec.trackers))
    if not trackers:
        return {}
    run = read_run(context)
    results = {tracker: _track(context, tracker, run) for tracker in trackers}
    for tracker, result in results.items():
        fields = {"tracker": tracker.value, "points": result.points}
        if result.error is None:
            log.info("the tracker has all generations", extra={"fields": fields})
        else:
            log.warning("%s: %s; the run goes on", tracker.value, result.error)
    return results


def read_run(context: StageContext) -> TrackedRun:
    """Return the run so far, from the manifests in the storage.

    Parameters
    ----------
    context
        The context of the stage Publish.
    """
    config = context.config
    recorded = read_records(context.store, context.run_uri)
    outcomes = recorded_outcomes(recorded)
    if config.outcomes is not None:
        outcomes |= {outcome.generation: outcome for outcome in config.outcomes.generations}
    records = [
        record
        for record in recorded
        if record.manifest.stage is not Stage.PUBLISH
        and record.manifest.generation <= config.generation
    ]
    generations: list[TrackedGeneration] = []
    steps = 0
    for number, group in groupby(records, key=lambda record: record.manifest.generation):
        stages = list(group)
        generations.append(
            _generation(stages, config.spec.dataset.labels, steps, outcomes.get(number))
        )
        steps += training_steps([record.manifest for record in stages])
    return TrackedRun(
        id=run_identity(context.store, context.run_uri, config.run),
        settings=flat_settings(config.spec),
        tags=run_tags(config.spec, config.run, context.run_uri, config.outcomes),
        generations=generations,
    )


def run_identity(store: Store, folder: str, run: str) -> str:
    """Return the identity of a run in all trackers, which the first call stores.

    It is the name and the uid of the run with a random suffix. The uid alone is not enough: a local
    run of the same name has the same uid on every machine, and after its data was deleted.

    Parameters
    ----------
    store
        The storage of the run.
    folder
        The URI of the run's folder.
    run
        The path of that folder, ``<namespace>/<name>-<uid8>``.
    """
    uri = join(folder, IDENTITY)
    name = f"{run.rsplit('/', 1)[-1]}-{secrets.token_hex(3)}"
    try:
        data = store.get(uri)
    except ObjectNotFound:
        data = canonical_json({"id": name})
        if not store.put_if_absent(uri, data):
            data = store.get(uri)
    identity: str = json.loads(data)["id"]
    return identity


def _generation(
    records: Sequence[StageRecord],
    labels: Sequence[str],
    earlier_steps: int,
    outcome: GenerationOutcome | None,
) -> TrackedGeneration:
    """Return one generation, with the times that are stored beside the manifests."""
    points = generation_points(
        [record.manifest for record in records],
        seconds={r.manifest.stage: r.seconds for r in records if r.seconds is not None},
        labels=labels,
        earlier_steps=earlier_steps,
        outcome=outcome,
    )
    finished = max((r.finished for r in records if r.finished is not None), default=0.0)
    return TrackedGeneration(
        generation=records[0].manifest.generation, time=finished or time.time(), points=points
    )


def _track(context: StageContext, tracker: Tracker, run: TrackedRun) -> TrackerResult:
    """Run the worker of one tracker, and put its files into the storage."""
    folder = context.work / f"tracker-{tracker.value.lower()}"
    shutil.rmtree(folder, ignore_errors=True)
    files = folder / "files"
    files.mkdir(parents=True)
    job = WorkerJob(
        tracker=tracker,
        run=run,
        folder=files,
        report=_report(context, folder),
        result=folder / "result.json",
    )
    result = _run_worker(job, folder)
    for file in sorted(files.iterdir()):
        uri = join(context.run_uri, TENSORBOARD, file.name)
        context.store.put_if_absent(uri, file.read_bytes())
    return result


def _report(context: StageContext, folder: Path) -> Path | None:
    """Return a copy of the run's report; None if there is none."""
    path = folder / REPORT_FILE
    try:
        context.store.download(join(context.run_uri, REPORT_FILE), path)
    except ObjectNotFound:
        return None
    return path


def _run_worker(job: WorkerJob, folder: Path) -> TrackerResult:
    """Run a worker until it ends or its time is over."""
    job_file = folder / "job.json"
    job_file.write_text(job.model_dump_json(by_alias=True))
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "selfemo_jobs.trackers", "--job", str(job_file)],
            env={**os.environ, ENV_PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # the processes that a library starts end with the worker
        )
        try:
            code = process.wait(WORKER_SECONDS)
        except subprocess.TimeoutExpired:
            return TrackerResult(error=f"it did not answer within {WORKER_SECONDS:.0f} seconds")
        finally:
            _end_session(process)
    if not job.result.is_file():
        return TrackerResult(error=f"its process ended with code {code}")
    return TrackerResult.model_validate_json(job.result.read_bytes())


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End the processes of a worker's session, if any of them still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
