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
from pathlib import Path

from selfemo_api.contract import ENV_PARENT, GenerationOutcome
from selfemo_api.spec import Tracker
from selfemo_api.stages import Stage, stage_prefix, stages_of
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, canonical_json, read_manifest
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
REPORT = "report.html"


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


def run_folder(context: StageContext) -> str:
    """Return the URI of the run's folder in the storage.

    Parameters
    ----------
    context
        The context of a stage of the run.
    """
    return join(context.config.spec.storage.uri, context.config.run)


def read_run(context: StageContext) -> TrackedRun:
    """Return the run so far, from the manifests in the storage.

    Parameters
    ----------
    context
        The context of the stage Publish.
    """
    config, folder = context.config, run_folder(context)
    outcomes = {o.generation: o for o in config.outcomes.generations} if config.outcomes else {}
    generations: list[TrackedGeneration] = []
    steps = 0
    for number in range(config.generation + 1):
        manifests = _manifests(context.store, folder, number)
        if manifests:
            outcome = outcomes.get(number)
            labels = config.spec.dataset.labels
            generations.append(
                _generation(context.store, folder, manifests, labels, steps, outcome)
            )
            steps += training_steps(manifests)
    return TrackedRun(
        id=run_identity(context.store, folder, config.run),
        settings=flat_settings(config.spec),
        tags=run_tags(config.spec, config.run, folder, config.outcomes),
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


def _manifests(store: Store, folder: str, generation: int) -> list[Manifest]:
    """Return the manifests of a generation. A stage that did not run has none."""
    manifests = []
    for stage in stages_of(generation, warm_start=True):
        uri = join(folder, stage_prefix(generation, stage), MANIFEST)
        if stage is not Stage.PUBLISH and store.exists(uri):
            manifests.append(read_manifest(store, uri)[0])
    return manifests


def _generation(
    store: Store,
    folder: str,
    manifests: list[Manifest],
    labels: list[str],
    earlier_steps: int,
    outcome: GenerationOutcome | None,
) -> TrackedGeneration:
    """Return one generation, with the times that are stored beside the manifests."""
    number = manifests[0].generation
    times: list[float] = []
    seconds: dict[Stage, float] = {}
    for manifest in manifests:
        try:
            data = store.get(join(folder, stage_prefix(number, manifest.stage), "run.json"))
            record = json.loads(data)
            times.append(float(record["finishedTime"]))
            seconds[manifest.stage] = float(record["seconds"])
        except (ObjectNotFound, ValueError, KeyError, TypeError):
            continue  # only the times are missing
    points = generation_points(
        manifests, seconds=seconds, labels=labels, earlier_steps=earlier_steps, outcome=outcome
    )
    return TrackedGeneration(
        generation=number, time=max(times, default=0.0) or time.time(), points=points
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
        uri = join(run_folder(context), TENSORBOARD, file.name)
        context.store.put_if_absent(uri, file.read_bytes())
    return result


def _report(context: StageContext, folder: Path) -> Path | None:
    """Return a copy of the run's report; None if there is none."""
    path = folder / REPORT
    try:
        context.store.download(join(run_folder(context), REPORT), path)
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
