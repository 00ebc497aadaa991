"""Reads back what a tool has, by the tool's own API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import wandb_file

from selfemo_api.spec import Tracker
from selfemo_jobs.trackers.points import Axis, TrackedRun

#: Name and step of each point, with all values that the tool has for it.
Points = dict[tuple[str, int], list[float]]

_AXES = {str(axis) for axis in Axis}
_TRACKIO = """
import json, sys
from trackio import Api
from trackio.sqlite_storage import SQLiteStorage
(run,) = Api().runs("selfemo")
rows = SQLiteStorage.get_logs("selfemo", run.name, run_id=run.id)
print(json.dumps({"name": run.name, "config": run.config, "rows": rows}))
"""


def expected_points(run: TrackedRun) -> Points:
    return {(p.name, p.step): [p.value] for g in run.generations for p in g.points}


def read_points(tracker: Tracker, tools: Path, storage: Path) -> Points:
    """Return all points that a tool has."""
    match tracker:
        case Tracker.MLFLOW:
            return _mlflow_points()
        case Tracker.WANDB:
            return _row_points(wandb_file.history(wandb_run(tools)))
        case Tracker.TRACKIO:
            return _row_points(trackio_run()["rows"])
        case Tracker.TENSORBOARD:
            return _tensorboard_points(storage)


def mlflow_run() -> Any:
    """Return the only run of the experiment."""
    client = mlflow_client()
    experiment = client.get_experiment_by_name("selfemo")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def mlflow_client() -> Any:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    from mlflow import MlflowClient

    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def wandb_run(tools: Path) -> Path:
    """Return the file of the only offline run."""
    (path,) = tools.glob("wandb/offline-run-*/run-*.wandb")
    return path


def trackio_run() -> dict[str, Any]:
    """Return name, config and rows of the only run. Trackio reads its folder when imported."""
    code = [sys.executable, "-c", _TRACKIO]
    run: dict[str, Any] = json.loads(subprocess.run(code, check=True, capture_output=True).stdout)
    return run


def _mlflow_points() -> Points:
    client, run = mlflow_client(), mlflow_run()
    points: Points = {}
    for name in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, name):
            points.setdefault((name, metric.step), []).append(metric.value)
    return points


def _row_points(rows: list[dict[str, Any]]) -> Points:
    points: Points = {}
    for row in rows:
        (axis,) = _AXES & row.keys()
        for name in row:
            if "/" in name:
                points.setdefault((name, int(row[axis])), []).append(row[name])
    return points


def _tensorboard_points(storage: Path) -> Points:
    events = tensorboard_events(storage)
    points: Points = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            points.setdefault((name, event.step), []).append(event.value)
    return points


def tensorboard_events(storage: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = storage.glob("*/*/tensorboard")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return events
